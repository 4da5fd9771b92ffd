#include "kernels/cpu/attention_driver.h"

#include <algorithm>
#include <limits>

#include "base/checked_math.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"

namespace moesaic::kernels {
namespace {

// Fewer items than this per thread are cut further, into splits.
constexpr int64_t kItemsPerThread = 8;
// Splits whose partial results are kept at a time: enough that waiting for the last of a wave
// (about one split) is little against the wave.
constexpr int64_t kWaveSplitsPerThread = 8;
constexpr int64_t kMinWaveSplits = 64;
// Merging fewer values than this is not worth waking other threads.
constexpr int64_t kParallelMergeValues = int64_t{1} << 17;
// Multiplications in a call (one sequence's first tokens) that are not either: about 4 us.
constexpr int64_t kParallelWork = int64_t{1} << 16;

struct Layout {
  int64_t queries = 0;  // capacity of an item
  int64_t padded_dim = 0;
  int64_t wave_splits = 0;
  int64_t max_split_items = 0;  // items, when items are cut into splits
  int64_t partial_floats = 0;
  int64_t scratch_floats = 0;

  Layout(int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t num_threads)
      : queries(std::max(kAttentionTileQueries, num_heads / num_kv_heads)),
        padded_dim(RoundUp(head_dim, kAttentionDimUnit)),
        wave_splits(std::max(kMinWaveSplits, kWaveSplitsPerThread * num_threads)),
        max_split_items(kItemsPerThread * num_threads),
        partial_floats(RoundUp(queries * (padded_dim + 2), int64_t{16})),
        scratch_floats(queries * padded_dim + kAttentionKeyBlocks * kKvBlockTokens * padded_dim +
                       queries * kAttentionSplitTokens) {}

  // Per worker: scratch, one partial and one state. Shared: a wave of partials, states of items.
  int64_t WorkerFloats() const { return scratch_floats + 2 * partial_floats; }
  int64_t TotalFloats(int64_t num_threads) const {
    return num_threads * WorkerFloats() + (wave_splits + max_split_items) * partial_floats;
  }
};

class AttentionRun {
 public:
  AttentionRun(const AttentionArgs& args, Stream& stream, const AttentionFunctions& functions)
      : args_(args),
        functions_(functions),
        pool_(stream.pool),
        num_threads_(pool_ == nullptr ? 1 : pool_->num_threads()),
        layout_(args.num_heads, args.num_kv_heads, args.head_dim, num_threads_),
        group_(args.num_heads / args.num_kv_heads),
        tile_rows_(std::max<int64_t>(1, kAttentionTileQueries / group_)),
        workspace_(static_cast<float*>(args.workspace)) {}

  void Run() {
    int64_t items = 0;
    int64_t splits = 0;
    int64_t most_splits = 0;
    int64_t work = 0;
    for (int64_t s = 0; s < args_.num_sequences; ++s) {
      const int64_t tiles = Tiles(args_.sequences[s]);
      work +=
          args_.sequences[s].num_rows *
          static_cast<int64_t>(args_.sequences[s].context_tokens + args_.sequences[s].num_rows) *
          args_.num_heads * args_.head_dim;
      items += tiles * args_.num_kv_heads;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t count = NumSplits(MakeItem(args_.sequences[s], tile, 0));
        splits += count * args_.num_kv_heads;
        most_splits = std::max(most_splits, count);
      }
    }
    if (work < kParallelWork) {
      for (int64_t index = 0; index < items; ++index) RunItem(FindItem(index), 0);
    } else if (most_splits > 1 && num_threads_ > 1 && items <= layout_.max_split_items) {
      RunSplits(items, splits);
    } else {
      ForEach(items, [&](int64_t index, int worker) { RunItem(FindItem(index), worker); });
    }
  }

 private:
  int64_t Tiles(const AttentionSequence& sequence) const {
    return CeilDiv<int64_t>(sequence.num_rows, tile_rows_);
  }

  AttentionItem MakeItem(const AttentionSequence& sequence, int64_t tile, int64_t kv_head) const {
    AttentionItem item;
    item.args = &args_;
    item.sequence = &sequence;
    item.kv_head = kv_head;
    item.first_row = tile * tile_rows_;
    item.num_rows = std::min<int64_t>(tile_rows_, sequence.num_rows - item.first_row);
    item.group = group_;
    item.padded_dim = layout_.padded_dim;
    return item;
  }

  // Items in the order sequence, tile from the last (the longest work first), KV head.
  AttentionItem FindItem(int64_t index) const {
    const AttentionSequence* sequence = args_.sequences;
    while (index >= Tiles(*sequence) * args_.num_kv_heads) {
      index -= Tiles(*sequence) * args_.num_kv_heads;
      ++sequence;
    }
    const int64_t tile = Tiles(*sequence) - 1 - index / args_.num_kv_heads;
    return MakeItem(*sequence, tile, index % args_.num_kv_heads);
  }

  // The splits that any of the item's rows sees.
  int64_t FirstSplit(const AttentionItem& item) const {
    if (args_.sliding_window <= 0) return 0;
    const int64_t position = item.sequence->context_tokens + item.first_row;
    return std::max<int64_t>(0, position - args_.sliding_window + 1) / kAttentionSplitTokens;
  }
  int64_t NumSplits(const AttentionItem& item) const {
    const int64_t end = item.sequence->context_tokens + item.first_row + item.num_rows;
    return CeilDiv(end, kAttentionSplitTokens) - FirstSplit(item);
  }

  AttentionPartial PartialAt(float* memory) const {
    return {memory, memory + layout_.queries, memory + 2 * layout_.queries};
  }
  float* WorkerMemory(int worker) const { return workspace_ + worker * layout_.WorkerFloats(); }
  AttentionPartial WorkerPartial(int worker, int64_t which) const {
    return PartialAt(WorkerMemory(worker) + layout_.scratch_floats +
                     which * layout_.partial_floats);
  }
  AttentionPartial SharedPartial(int64_t which) const {
    return PartialAt(workspace_ + num_threads_ * layout_.WorkerFloats() +
                     which * layout_.partial_floats);
  }
  AttentionScratch Scratch(int worker) const {
    float* memory = WorkerMemory(worker);
    float* keys = memory + layout_.queries * layout_.padded_dim;
    return {memory, keys, keys + kAttentionKeyBlocks * kKvBlockTokens * layout_.padded_dim};
  }

  void Clear(const AttentionItem& item, const AttentionPartial& state) const {
    std::fill_n(state.maximum, item.num_rows * item.group, -std::numeric_limits<float>::infinity());
  }

  template <typename Body>
  void ForEach(int64_t count, const Body& body) const {
    if (pool_ != nullptr) {
      pool_->ParallelFor(count, body);
    } else {
      for (int64_t index = 0; index < count; ++index) body(index, 0);
    }
  }

  // A whole item in one thread.
  void RunItem(const AttentionItem& item, int worker) const {
    const AttentionScratch scratch = Scratch(worker);
    const AttentionPartial partial = WorkerPartial(worker, 0);
    const AttentionPartial state = WorkerPartial(worker, 1);
    Clear(item, state);
    functions_.pack_queries(item, scratch);
    const int64_t first = FirstSplit(item);
    for (int64_t split = first; split < first + NumSplits(item); ++split) {
      functions_.split(item, split * kAttentionSplitTokens, scratch, partial);
      functions_.merge(item, partial, state);
    }
    functions_.finish(item, state);
  }

  // An item and its splits' place among those of the call, which are numbered item by item.
  struct ItemSplits {
    AttentionItem item;
    int64_t index = 0;
    int64_t begin = 0;
    int64_t end = 0;
  };

  // The item of `index`, or that of split number `split` where `index` is negative.
  ItemSplits FindSplits(int64_t index, int64_t split) const {
    int64_t items_before = 0;
    int64_t splits_before = 0;
    for (const AttentionSequence* sequence = args_.sequences;; ++sequence) {
      for (int64_t tile = Tiles(*sequence) - 1; tile >= 0; --tile) {
        const int64_t count = NumSplits(MakeItem(*sequence, tile, 0));
        const int64_t kv_head = index >= 0 ? index - items_before : (split - splits_before) / count;
        if (kv_head < args_.num_kv_heads) {
          const int64_t begin = splits_before + kv_head * count;
          return {MakeItem(*sequence, tile, kv_head), items_before + kv_head, begin, begin + count};
        }
        items_before += args_.num_kv_heads;
        splits_before += args_.num_kv_heads * count;
      }
    }
  }

  AttentionPartial State(int64_t index) const { return SharedPartial(layout_.wave_splits + index); }

  // Few items: threads share their splits, in waves of as many as there is room to keep.
  void RunSplits(int64_t items, int64_t splits) const {
    for (int64_t index = 0; index < items; ++index) {
      Clear(FindSplits(index, 0).item, State(index));
    }
    for (int64_t wave = 0; wave < splits; wave += layout_.wave_splits) {
      const int64_t wave_end = std::min(wave + layout_.wave_splits, splits);
      ForEach(wave_end - wave, [&](int64_t slot, int worker) {
        const ItemSplits found = FindSplits(-1, wave + slot);
        const int64_t split = FirstSplit(found.item) + wave + slot - found.begin;
        const AttentionScratch scratch = Scratch(worker);
        functions_.pack_queries(found.item, scratch);
        functions_.split(found.item, split * kAttentionSplitTokens, scratch, SharedPartial(slot));
      });
      MergeWave(wave, wave_end);
    }
  }

  // Adds a wave's partial results to their items' states, and finishes the items that are complete.
  void MergeWave(int64_t wave, int64_t wave_end) const {
    const int64_t first = FindSplits(-1, wave).index;
    const int64_t count = FindSplits(-1, wave_end - 1).index - first + 1;
    const auto merge_item = [&](int64_t offset, int) {
      const ItemSplits found = FindSplits(first + offset, 0);
      const AttentionPartial state = State(found.index);
      const int64_t end = std::min(found.end, wave_end);
      for (int64_t number = std::max(found.begin, wave); number < end; ++number) {
        functions_.merge(found.item, SharedPartial(number - wave), state);
      }
      if (end == found.end) functions_.finish(found.item, state);
    };
    const int64_t item_values = tile_rows_ * group_ * layout_.padded_dim;
    if ((wave_end - wave) * item_values < kParallelMergeValues) {
      for (int64_t offset = 0; offset < count; ++offset) merge_item(offset, 0);
    } else {
      ForEach(count, merge_item);
    }
  }

  const AttentionArgs& args_;
  const AttentionFunctions& functions_;
  ThreadPool* const pool_;
  const int64_t num_threads_;
  const Layout layout_;
  const int64_t group_;
  const int64_t tile_rows_;
  float* const workspace_;
};

}  // namespace

void RunAttention(const AttentionArgs& args, Stream& stream, const AttentionFunctions& functions) {
  AttentionRun(args, stream, functions).Run();
}

namespace cpu {

size_t AttentionWorkspaceBytes(int64_t num_heads,
                               int64_t num_kv_heads,
                               int64_t head_dim,
                               int num_threads) {
  const Layout layout(num_heads, num_kv_heads, head_dim, num_threads);
  return layout.TotalFloats(num_threads) * sizeof(float);
}

}  // namespace cpu
}  // namespace moesaic::kernels
