#pragma once

// kernels/attention.h for the instruction set of the including unit: the functions that
// kernels/cpu/attention_driver.h asks for.
//
// Scores have one lane per position (keys are transposed block by block), values one lane per
// dimension. Each q.k is one running sum over ascending dimensions, each output one over ascending
// positions, so a query's bits do not depend on what shares its tile.

#include "kernels/attention.h"
#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/vector.h"

namespace moesaic::kernels::MOESAIC_ISA {

#if defined(__AVX512F__)
constexpr int kScoreQueries = 6;
constexpr int kScoreBlocks = 4;
constexpr int kValueQueries = 6;
constexpr int kValueVectors = 4;
#else
// 16 registers.
constexpr int kScoreQueries = kLanes == 8 ? 4 : 2;
constexpr int kScoreBlocks = 1;
constexpr int kValueQueries = 4;
constexpr int kValueVectors = 2;
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

// Positions that one query sees, relative to a split's begin.
struct Range {
  int64_t begin;
  int64_t end;
};

MOESAIC_INLINE Range VisibleRange(const AttentionItem& item, int64_t query, int64_t split_begin) {
  const int64_t position =
      item.sequence->context_tokens + item.first_row + query / item.group - split_begin;
  const int64_t window = item.args->sliding_window;
  return {window > 0 ? Max(0, position - window + 1) : 0, Min(position + 1, kAttentionSplitTokens)};
}

// One KV head's part of a block of the split that begins at `split_begin`: [16, head_dim].
template <typename T>
MOESAIC_INLINE const T* BlockOf(const AttentionItem& item,
                                const void* cache,
                                int64_t split_begin,
                                int64_t block) {
  const AttentionArgs& args = *item.args;
  const int64_t id = item.sequence->block_table[split_begin / kKvBlockTokens + block];
  return static_cast<const T*>(cache) +
         (id * args.num_kv_heads + item.kv_head) * kKvBlockTokens * args.head_dim;
}

// Brings the blocks that come next into the cache while one is computed with: a block lies anywhere
// in memory and is too short for the machine's own prefetching to find its stride. The order is the
// split's keys, its values, then the keys of the next split.
template <typename T>
class BlockPrefetch {
 public:
  BlockPrefetch(const AttentionItem& item, int64_t split_begin, Range visible)
      : item_(item),
        split_begin_(split_begin),
        first_block_(visible.begin / kKvBlockTokens),
        end_block_((visible.end + kKvBlockTokens - 1) / kKvBlockTokens),
        block_bytes_(kKvBlockTokens * item.args->head_dim * static_cast<int64_t>(sizeof(T))),
        distance_(Max(1, kPrefetchBytes / block_bytes_)) {
    for (int64_t i = 0; i < distance_; ++i) AheadOfKeys(first_block_ + i - distance_);
  }

  // To be called before `block` is computed with.
  __attribute__((always_inline)) void AheadOfKeys(int64_t block) const {
    const int64_t ahead = block + distance_;
    if (ahead < end_block_) {
      Prefetch(item_.args->k_cache, ahead);
    } else if (ahead - end_block_ < end_block_ - first_block_) {
      Prefetch(item_.args->v_cache, first_block_ + ahead - end_block_);
    }
  }
  __attribute__((always_inline)) void AheadOfValues(int64_t block) const {
    const int64_t ahead = block + distance_;
    const int64_t next_split = kAttentionSplitTokens / kKvBlockTokens + ahead - end_block_;
    if (ahead < end_block_) {
      Prefetch(item_.args->v_cache, ahead);
    } else if (split_begin_ + next_split * kKvBlockTokens <
               item_.sequence->context_tokens + item_.first_row + item_.num_rows) {
      Prefetch(item_.args->k_cache, next_split);
    }
  }

 private:
  // Some memory latencies' worth at one core's bandwidth, and half of a first-level cache.
  static constexpr int64_t kPrefetchBytes = 16384;

  __attribute__((always_inline)) void Prefetch(const void* cache, int64_t block) const {
    const char* memory =
        reinterpret_cast<const char*>(BlockOf<T>(item_, cache, split_begin_, block));
    for (int64_t i = 0; i < block_bytes_; i += 64) __builtin_prefetch(memory + i, 0, 2);
  }

  const AttentionItem& item_;
  const int64_t split_begin_;
  const int64_t first_block_;
  const int64_t end_block_;
  const int64_t block_bytes_;
  const int64_t distance_;
};

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

// Turns one query's scores in `range` into exp(scale (score - maximum)), 0 elsewhere in their
// vectors.
MOESAIC_INLINE void Softmax(
    float* scores, Range range, float scale, float* maximum, float* sum_out) {
  const Vec none = Broadcast(-__builtin_inff());
  const Vec begin = Broadcast(static_cast<float>(range.begin));
  const Vec end = Broadcast(static_cast<float>(range.end));
  const int64_t first = range.begin / kLanes * kLanes;
  Vec max = none;
  for (int64_t t = first; t < range.end; t += kLanes) {
    const Vec position = LaneIndex() + Broadcast(static_cast<float>(t));
    Vec score = Select(Less(position, end), Load(scores + t), none);
    score = Select(Less(position, begin), none, score);
    Store(scores + t, score);
    max = Max(score, max);
  }
  *maximum = ReduceMax(max);
  const Vec shift = Broadcast(*maximum);
  // Lane by lane over positions that are equal modulo 16, whatever the vector's length.
  Vec sums[kBlockVectors];
  for (int v = 0; v < kBlockVectors; ++v) sums[v] = Zero();
  for (int64_t t = first / kKvBlockTokens * kKvBlockTokens; t < range.end; t += kKvBlockTokens) {
    for (int v = 0; v < kBlockVectors; ++v) {
      const int64_t at = t + v * kLanes;
      if (at < first || at >= range.end) continue;
      const Vec score = Load(scores + at);
      const Vec weight =
          Select(Equal(score, none), Zero(), Exp((score - shift) * Broadcast(scale)));
      Store(scores + at, weight);
      sums[v] = sums[v] + weight;
    }
  }
  Vec sum = sums[0];
  for (int v = 1; v < kBlockVectors; ++v) sum = sum + sums[v];
  *sum_out = ReduceAdd(sum);
}

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

template <typename T>
void Split(const AttentionItem& item,
           int64_t split_begin,
           const AttentionScratch& scratch,
           const AttentionPartial& partial) {
  const int64_t num_queries = item.num_rows * item.group;
  const Range first = VisibleRange(item, 0, split_begin);
  const Range last = VisibleRange(item, num_queries - 1, split_begin);
  const Range visible = {first.begin, last.end};
  const BlockPrefetch<T> prefetch(item, split_begin, visible);
  ComputeScores<T>(item, split_begin, visible, prefetch, scratch);

  for (int64_t q = 0; q < num_queries; ++q) {
    const Range range = VisibleRange(item, q, split_begin);
    float* scores = scratch.scores + q * kAttentionSplitTokens;
    partial.maximum[q] = -__builtin_inff();
    partial.sum[q] = 0.0f;
    if (range.begin < range.end) {
      Softmax(scores, range, item.args->scale, partial.maximum + q, partial.sum + q);
    }
  }

  for (int64_t i = 0; i < num_queries * item.padded_dim; i += kLanes) {
    Store(partial.values + i, Zero());
  }
  for (int64_t q = 0; q < num_queries; q += kValueQueries) {
    const int64_t count = Min(kValueQueries, num_queries - q);
    // Positions that all of these queries see together, and around them those that each sees
    // alone: a query never touches a value that it does not see, even with weight 0.
    Range shared = {VisibleRange(item, q + count - 1, split_begin).begin,
                    VisibleRange(item, q, split_begin).end};
    if (shared.begin > shared.end) shared.begin = shared.end;
    const ValueSource<T> source = {&item, split_begin, q == 0 ? &prefetch : nullptr};
    const float* weights = scratch.scores + q * kAttentionSplitTokens;
    float* values = partial.values + q * item.padded_dim;
    for (int64_t i = 0; i < count; ++i) {
      const Range range = VisibleRange(item, q + i, split_begin);
      AddValues<T, 1>(source, weights + i * kAttentionSplitTokens,
                      {range.begin, Min(range.end, shared.begin)}, values + i * item.padded_dim,
                      item.padded_dim);
    }
    AddValuesUpTo<T, kValueQueries>(count, source, weights, shared, values, item.padded_dim);
    for (int64_t i = 0; i < count; ++i) {
      const Range range = VisibleRange(item, q + i, split_begin);
      AddValues<T, 1>(source, weights + i * kAttentionSplitTokens,
                      {Max(range.begin, shared.end), range.end}, values + i * item.padded_dim,
                      item.padded_dim);
    }
  }
}

static void Merge(const AttentionItem& item,
                  const AttentionPartial& partial,
                  const AttentionPartial& state) {
  const float none = -__builtin_inff();
  for (int64_t q = 0; q < item.num_rows * item.group; ++q) {
    const float* from = partial.values + q * item.padded_dim;
    float* to = state.values + q * item.padded_dim;
    if (partial.maximum[q] == none) continue;
    if (state.maximum[q] == none) {
      state.maximum[q] = partial.maximum[q];
      state.sum[q] = partial.sum[q];
      for (int64_t d = 0; d < item.padded_dim; d += kLanes) Store(to + d, Load(from + d));
      continue;
    }
    const float max = state.maximum[q] > partial.maximum[q] ? state.maximum[q] : partial.maximum[q];
    const float keep = Exp((state.maximum[q] - max) * item.args->scale);
    const float add = Exp((partial.maximum[q] - max) * item.args->scale);
    state.maximum[q] = max;
    state.sum[q] = state.sum[q] * keep + partial.sum[q] * add;
    for (int64_t d = 0; d < item.padded_dim; d += kLanes) {
      Store(to + d, MulAdd(Load(from + d), Broadcast(add), Load(to + d) * Broadcast(keep)));
    }
  }
}

template <typename T>
void Finish(const AttentionItem& item, const AttentionPartial& state) {
  const AttentionArgs& args = *item.args;
  const int64_t head_dim = args.head_dim;
  for (int64_t query = 0; query < item.num_rows * item.group; ++query) {
    const int64_t row = item.sequence->first_row + item.first_row + query / item.group;
    const int64_t head = item.kv_head * item.group + query % item.group;
    T* output = static_cast<T*>(args.output) + (row * args.num_heads + head) * head_dim;
    const float* values = state.values + query * item.padded_dim;
    const Vec inverse = Broadcast(1.0f / state.sum[query]);
    int64_t d = 0;
    for (; d + kLanes <= head_dim; d += kLanes) Store(output + d, Load(values + d) * inverse);
    if (d < head_dim) StorePartial(output + d, Load(values + d) * inverse, head_dim - d);
  }
}

template <typename T>
constexpr AttentionFunctions kAttentionFunctions = {&PackQueries<T>, &Split<T>, &Merge, &Finish<T>};

void Attention(const AttentionArgs& args, Stream& stream) {
  RunAttention(args, stream,
               args.dtype == DType::kBFloat16 ? kAttentionFunctions<BFloat16Bits>
                                              : kAttentionFunctions<float>);
}

}  // namespace moesaic::kernels::MOESAIC_ISA
