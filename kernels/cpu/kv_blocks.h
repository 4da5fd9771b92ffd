#pragma once

// How attention walks the paged KV cache, for the instruction set of the including unit.

#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/vector.h"

namespace moesaic::kernels::MOESAIC_ISA {

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
  // Some memory latencies' worth at one core's bandwidth.
  static constexpr int64_t kPrefetchBytes = 8192;

  // Into the second level: a Zen 4 core has more misses in flight there (pieces of 2 KiB anywhere
  // in memory are read at 17 GB/s, against 10 with prefetches to the first level or none). Inlined
  // by force: GCC takes a function that only prefetches for one without effect.
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

}  // namespace moesaic::kernels::MOESAIC_ISA
