#pragma once

// kernels/attention.h for the instruction set of the including unit: the functions that
// kernels/cpu/attention_driver.h asks for.

#include "kernels/attention.h"
#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/attention_scores.h"
#include "kernels/cpu/attention_values.h"
#include "kernels/cpu/kv_blocks.h"
#include "kernels/cpu/vector.h"

namespace moesaic::kernels::MOESAIC_ISA {

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
    if (state.maximum[q] == none) {
      state.maximum[q] = partial.maximum[q];
      state.sum[q] = partial.sum[q];
      for (int64_t d = 0; d < item.padded_dim; d += kLanes) Store(to + d, Load(from + d));
      continue;
    }
    if (partial.maximum[q] == none) continue;
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
