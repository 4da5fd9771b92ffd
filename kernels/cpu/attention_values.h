#pragma once

// The second half of attention, for the instruction set of the including unit: the weighted sum of
// V.
//
// One lane per dimension. Each output is one running sum over ascending positions, whatever shares
// its tile.

#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/kv_blocks.h"
#include "kernels/cpu/vector.h"

namespace moesaic::kernels::MOESAIC_ISA {

// Queries x vectors of dimensions whose sums fit the registers.
#if defined(__AVX512F__)
constexpr int kValueQueries = 6;
constexpr int kValueVectors = 4;
#else
constexpr int kValueQueries = 4;
constexpr int kValueVectors = 2;
#endif

// What ValueTile reads: one KV head's values over a split.
template <typename T>
struct ValueSource {
  const AttentionItem* item;
  int64_t split_begin;
  const BlockPrefetch<T>* prefetch;  // null: another pass over these values did it
};

// values[q][dims] += sum over positions of weights[q][position] * V[position][dims], over
// kVectors vectors of dimensions from `dim`; only `dims` of them exist if fewer than that.
template <typename T, int kQueries, int kVectors, bool kPartial>
MOESAIC_INLINE void ValueTile(ValueSource<T> source,
                              const float* weights,
                              Range range,
                              int64_t dim,
                              int64_t dims,
                              float* values,
                              int64_t padded_dim) {
  const int64_t head_dim = source.item->args->head_dim;
  Vec sums[kQueries][kVectors];
  for (int q = 0; q < kQueries; ++q) {
    for (int v = 0; v < kVectors; ++v) {
      sums[q][v] = Load(values + q * padded_dim + dim + v * kLanes);
    }
  }
  for (int64_t t = range.begin; t < range.end;) {
    const int64_t block = t / kKvBlockTokens;
    const int64_t block_end = Min(range.end, (block + 1) * kKvBlockTokens);
    if (source.prefetch != nullptr && dim == 0) source.prefetch->AheadOfValues(block);
    const T* row = BlockOf<T>(*source.item, source.item->args->v_cache, source.split_begin, block) +
                   t % kKvBlockTokens * head_dim + dim;
    for (; t < block_end; ++t, row += head_dim) {
      Vec value[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        value[v] = kPartial ? LoadPartial(row, dims) : Load(row + v * kLanes);
      }
      for (int q = 0; q < kQueries; ++q) {
        const Vec weight = Broadcast(weights[q * kAttentionSplitTokens + t]);
        for (int v = 0; v < kVectors; ++v) sums[q][v] = MulAdd(weight, value[v], sums[q][v]);
      }
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int v = 0; v < kVectors; ++v) {
      Store(values + q * padded_dim + dim + v * kLanes, sums[q][v]);
    }
  }
}

// All dimensions of kQueries queries.
template <typename T, int kQueries>
void AddValues(
    ValueSource<T> source, const float* weights, Range range, float* values, int64_t padded_dim) {
  if (range.begin >= range.end) return;
  const int64_t head_dim = source.item->args->head_dim;
  int64_t dim = 0;
  for (; dim + kValueVectors * kLanes <= head_dim; dim += kValueVectors * kLanes) {
    ValueTile<T, kQueries, kValueVectors, false>(source, weights, range, dim, 0, values,
                                                 padded_dim);
  }
  if constexpr (kValueVectors > 2) {
    for (; dim + 2 * kLanes <= head_dim; dim += 2 * kLanes) {
      ValueTile<T, kQueries, 2, false>(source, weights, range, dim, 0, values, padded_dim);
    }
  }
  for (; dim + kLanes <= head_dim; dim += kLanes) {
    ValueTile<T, kQueries, 1, false>(source, weights, range, dim, 0, values, padded_dim);
  }
  if (dim < head_dim) {
    ValueTile<T, kQueries, 1, true>(source, weights, range, dim, head_dim - dim, values,
                                    padded_dim);
  }
}

template <typename T, int kQueries>
MOESAIC_INLINE void AddValuesUpTo(int64_t count,
                                  ValueSource<T> source,
                                  const float* weights,
                                  Range range,
                                  float* values,
                                  int64_t padded_dim) {
  if (count == kQueries) {
    AddValues<T, kQueries>(source, weights, range, values, padded_dim);
  } else if constexpr (kQueries > 1) {
    AddValuesUpTo<T, kQueries - 1>(count, source, weights, range, values, padded_dim);
  }
}

}  // namespace moesaic::kernels::MOESAIC_ISA
