#pragma once

// The first half of attention, for the instruction set of the including unit: q.k and softmax.
//
// One lane per position: keys are transposed block by block. Each q.k is one running sum over
// ascending dimensions, whatever shares its tile.

#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/kv_blocks.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/vector.h"

namespace moesaic::kernels::MOESAIC_ISA {

// Queries x blocks whose sums fit the registers: 6 x 4 of 32, or 4 x 2 and 2 x 4 of 16.
#if defined(__AVX512F__)
constexpr int kScoreQueries = 6;
constexpr int kScoreBlocks = 4;
#else
constexpr int kScoreQueries = kLanes == 8 ? 4 : 2;
constexpr int kScoreBlocks = 1;
#endif
constexpr int kBlockVectors = kKvBlockTokens / kLanes;
static_assert(kAttentionKeyBlocks % kScoreBlocks == 0);

// Whether queries and keys stay bfloat16 and are multiplied in pairs.
template <typename T>
constexpr bool kPairs = false;
#if defined(__AVX512BF16__)
template <>
constexpr bool kPairs<BFloat16Bits> = true;
#endif

template <typename T>
void PackQueries(const AttentionItem& item, const AttentionScratch& scratch) {
  const AttentionArgs& args = *item.args;
  const int64_t row_values = args.num_heads * args.head_dim;
  for (int64_t query = 0; query < item.num_rows * item.group; ++query) {
    const int64_t row = item.sequence->first_row + item.first_row + query / item.group;
    const int64_t head = item.kv_head * item.group + query % item.group;
    const T* q = static_cast<const T*>(args.q) + row * row_values + head * args.head_dim;
    if constexpr (kPairs<T>) {
      T* packed = static_cast<T*>(scratch.queries) + query * item.padded_dim;
      for (int64_t d = 0; d < args.head_dim; ++d) packed[d] = q[d];
      for (int64_t d = args.head_dim; d < item.padded_dim; ++d) packed[d] = 0;
    } else {
      float* packed = static_cast<float*>(scratch.queries) + query * item.padded_dim;
      for (int64_t d = 0; d < item.padded_dim; d += kLanes) {
        const int64_t left = args.head_dim - d;
        Store(packed + d, left >= kLanes ? Load(q + d) : LoadPartial(q + d, Max(0, left)));
      }
    }
  }
}

// keys[d][16] of one block; with pairs of dimensions in 32 bits, keys[d / 2][16].
template <typename T>
MOESAIC_INLINE void PackKeyBlock(const T* block, int64_t head_dim, float* keys) {
  if constexpr (kPairs<T>) {
    TransposePairs(block, head_dim, keys);
  } else {
    for (int64_t t = 0; t < kKvBlockTokens; t += kLanes) {
      for (int64_t d = 0; d < head_dim; d += kLanes) {
        TransposeSquare(block + t * head_dim + d, head_dim, Min(kLanes, head_dim - d),
                        keys + d * kKvBlockTokens + t, kKvBlockTokens);
      }
    }
  }
}

// scores[q][token] of kQueries queries and kBlocks transposed blocks.
template <typename T, int kQueries, int kBlocks>
MOESAIC_INLINE void ScoreTile(const void* queries,
                              int64_t padded_dim,
                              const float* keys,
                              int64_t block_stride,
                              int64_t steps,
                              float* scores) {
  constexpr int kVectors = kBlocks * kBlockVectors;
  Vec sums[kQueries][kVectors];
  for (int q = 0; q < kQueries; ++q) {
    for (int v = 0; v < kVectors; ++v) sums[q][v] = Zero();
  }
  for (int64_t step = 0; step < steps; ++step) {
    Vec key[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      key[v] = Load(keys + (v / kBlockVectors) * block_stride + step * kKvBlockTokens +
                    (v % kBlockVectors) * kLanes);
    }
    for (int q = 0; q < kQueries; ++q) {
      if constexpr (kPairs<T>) {
        const T* query = static_cast<const T*>(queries) + q * padded_dim + 2 * step;
        for (int v = 0; v < kVectors; ++v) sums[q][v] = MulAddPairs(query, key[v], sums[q][v]);
      } else {
        const Vec query = Broadcast(static_cast<const float*>(queries)[q * padded_dim + step]);
        for (int v = 0; v < kVectors; ++v) sums[q][v] = MulAdd(query, key[v], sums[q][v]);
      }
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int v = 0; v < kVectors; ++v) {
      Store(scores + q * kAttentionSplitTokens + v * kLanes, sums[q][v]);
    }
  }
}

// The same for `count` <= kQueries queries.
template <typename T, int kQueries, int kBlocks>
MOESAIC_INLINE void ScoreUpTo(int64_t count,
                              const void* queries,
                              int64_t padded_dim,
                              const float* keys,
                              int64_t block_stride,
                              int64_t steps,
                              float* scores) {
  if (count == kQueries) {
    ScoreTile<T, kQueries, kBlocks>(queries, padded_dim, keys, block_stride, steps, scores);
  } else if constexpr (kQueries > 1) {
    ScoreUpTo<T, kQueries - 1, kBlocks>(count, queries, padded_dim, keys, block_stride, steps,
                                        scores);
  }
}

template <typename T, int kBlocks>
void ScoreBlocks(const AttentionItem& item,
                 const AttentionScratch& scratch,
                 const float* keys,
                 int64_t block_stride,
                 float* scores) {
  const int64_t num_queries = item.num_rows * item.group;
  const int64_t query_bytes = item.padded_dim * (kPairs<T> ? 2 : 4);
  const int64_t head_dim = item.args->head_dim;
  const int64_t steps = kPairs<T> ? (head_dim + 1) / 2 : head_dim;
  for (int64_t q = 0; q < num_queries; q += kScoreQueries) {
    ScoreUpTo<T, kScoreQueries, kBlocks>(
        Min(kScoreQueries, num_queries - q),
        static_cast<const char*>(scratch.queries) + q * query_bytes, item.padded_dim, keys,
        block_stride, steps, scores + q * kAttentionSplitTokens);
  }
}

// q.k of every query and every position in [visible.begin, visible.end) rounded out to blocks.
template <typename T>
void ComputeScores(const AttentionItem& item,
                   int64_t split_begin,
                   Range visible,
                   const BlockPrefetch<T>& prefetch,
                   const AttentionScratch& scratch) {
  const int64_t block_stride = item.padded_dim * kKvBlockTokens / (kPairs<T> ? 2 : 1);
  const int64_t end_block = (visible.end + kKvBlockTokens - 1) / kKvBlockTokens;
  for (int64_t block = visible.begin / kKvBlockTokens; block < end_block;
       block += kAttentionKeyBlocks) {
    const int64_t count = Min(kAttentionKeyBlocks, end_block - block);
    for (int64_t i = 0; i < count; ++i) {
      prefetch.AheadOfKeys(block + i);
      PackKeyBlock(BlockOf<T>(item, item.args->k_cache, split_begin, block + i),
                   item.args->head_dim, scratch.keys + i * block_stride);
    }
    int64_t i = 0;
    for (; i + kScoreBlocks <= count; i += kScoreBlocks) {
      ScoreBlocks<T, kScoreBlocks>(item, scratch, scratch.keys + i * block_stride, block_stride,
                                   scratch.scores + (block + i) * kKvBlockTokens);
    }
    for (; i < count; ++i) {
      ScoreBlocks<T, 1>(item, scratch, scratch.keys + i * block_stride, block_stride,
                        scratch.scores + (block + i) * kKvBlockTokens);
    }
  }
}

// Turns one query's scores in `range` into exp(scale (score - maximum)), and the rest of their
// vectors into 0. Sums lane by lane over ascending positions, then over the lanes.
MOESAIC_INLINE void Softmax(
    float* scores, Range range, float scale, float* maximum, float* sum_out) {
  const int64_t first = range.begin / kLanes * kLanes;
  const Vec begin = Broadcast(static_cast<float>(range.begin));
  const Vec end = Broadcast(static_cast<float>(range.end));
  const auto visible = [&](int64_t t, Vec score, float otherwise) __attribute__((always_inline)) {
    if (t >= range.begin && t + kLanes <= range.end) return score;
    const Vec position = LaneIndex() + Broadcast(static_cast<float>(t));
    score = Select(Less(position, end), score, Broadcast(otherwise));
    return Select(Less(position, begin), Broadcast(otherwise), score);
  };
  Vec max = Broadcast(-__builtin_inff());
  for (int64_t t = first; t < range.end; t += kLanes) {
    max = Max(visible(t, Load(scores + t), -__builtin_inff()), max);
  }
  *maximum = ReduceMax(max);
  const Vec shift = Broadcast(*maximum);
  Vec sum = Zero();
  for (int64_t t = first; t < range.end; t += kLanes) {
    const Vec weight = visible(t, Exp((Load(scores + t) - shift) * Broadcast(scale)), 0.0f);
    Store(scores + t, weight);
    sum = sum + weight;
  }
  *sum_out = ReduceAdd(sum);
}

}  // namespace moesaic::kernels::MOESAIC_ISA
