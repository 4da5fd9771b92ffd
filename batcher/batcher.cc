#include "batcher/batcher.h"

#include <algorithm>

#include "base/checked_math.h"
#include "core/batch.h"

namespace moesaic {
namespace {

// What is left of the budget while a plan is made.
class Remaining {
 public:
  explicit Remaining(const StepBudget& budget)
      : budget_(budget),
        rows_(budget.max_rows),
        logits_rows_(budget.max_logits_rows),
        free_blocks_(budget.free_blocks) {}

  int32_t rows() const { return rows_; }

  // Free blocks that the next `num_rows` > 0 rows take.
  int32_t Blocks(const SequenceView& view, int32_t num_rows) const {
    const int32_t covered = CeilDiv(view.computed_tokens + num_rows, kKvBlockTokens);
    return std::max(0, covered - view.blocks_held) + view.extra_blocks;
  }

  // The longest chunk of `view` that every budget allows.
  int32_t LongestChunk(const SequenceView& view) const {
    if (view.extra_blocks > free_blocks_) return 0;
    const int64_t covered =
        int64_t{kKvBlockTokens} * (view.blocks_held + free_blocks_ - view.extra_blocks);
    const int64_t by_blocks = covered - view.computed_tokens;
    const int64_t by_logits =
        int64_t{std::max(0, view.logits_from - view.computed_tokens)} + logits_rows_;
    const int64_t pending = view.num_tokens - view.computed_tokens;
    return static_cast<int32_t>(
        std::max<int64_t>(0, std::min({pending, int64_t{rows_}, by_blocks, by_logits})));
  }

  bool BlocksSuffice(const SequenceView& view, int32_t num_rows) const {
    return Blocks(view, num_rows) <= free_blocks_;
  }

  void Take(const SequenceView& view, int32_t num_rows) {
    const int32_t end = view.computed_tokens + num_rows;
    rows_ -= num_rows;
    logits_rows_ -= std::max(0, end - std::max(view.logits_from, view.computed_tokens));
    free_blocks_ -= Blocks(view, num_rows);
  }

  // Blocks that a running sequence still needs for its known tokens once it was given `num_rows`.
  int32_t Outstanding(const SequenceView& view, int32_t num_rows) const {
    const int32_t held =
        std::max(view.blocks_held, CeilDiv(view.computed_tokens + num_rows, kKvBlockTokens));
    const int32_t missing = std::max(0, CeilDiv(view.num_tokens, kKvBlockTokens) - held);
    return std::min(missing, budget_.max_sequence_blocks);
  }

  // Whether all known tokens of a waiting sequence fit beside `reserved` blocks.
  bool FitsBeside(const SequenceView& view, int64_t reserved) const {
    const int64_t needed =
        std::min(std::max(0, CeilDiv(view.num_tokens, kKvBlockTokens) - view.blocks_held) +
                     view.extra_blocks,
                 budget_.max_sequence_blocks);
    return needed + reserved <= free_blocks_;
  }

 private:
  const StepBudget& budget_;
  int32_t rows_;
  int32_t logits_rows_;
  int32_t free_blocks_;
};

}  // namespace

void PlanStep(const StepBudget& budget,
              std::span<const SequenceView> running,
              absl::FunctionRef<const SequenceView*()> next_waiting,
              StepPlan& plan) {
  plan.preempt = -1;
  plan.running.clear();
  plan.admitted.clear();
  Remaining remaining(budget);
  const auto preempt_latest = [&] {
    plan.running.clear();
    plan.preempt = static_cast<int32_t>(running.size()) - 1;
  };

  int64_t reserved = 0;
  int32_t slots = 0;
  for (size_t i = 0; i < running.size(); ++i) {
    const SequenceView& view = running[i];
    slots += view.slots;
    if (view.num_tokens - view.computed_tokens != 1) continue;
    if (!remaining.BlocksSuffice(view, 1)) return preempt_latest();
    if (remaining.LongestChunk(view) == 0) continue;
    remaining.Take(view, 1);
    plan.running.push_back({.index = static_cast<int32_t>(i), .num_rows = 1});
  }

  bool prefill_lacks_blocks = false;
  for (size_t i = 0; i < running.size(); ++i) {
    const SequenceView& view = running[i];
    if (view.num_tokens - view.computed_tokens <= 1) continue;
    int32_t num_rows = 0;
    if (!prefill_lacks_blocks) {
      num_rows = remaining.LongestChunk(view);
      prefill_lacks_blocks = num_rows == 0 && !remaining.BlocksSuffice(view, 1);
    }
    if (num_rows > 0) {
      remaining.Take(view, num_rows);
      plan.running.push_back({.index = static_cast<int32_t>(i), .num_rows = num_rows});
    }
    reserved += remaining.Outstanding(view, num_rows);
  }
  // Decoding sequences will end and free their blocks; with none of them, somebody must yield.
  if (prefill_lacks_blocks && plan.running.empty()) return preempt_latest();

  if (!budget.admit) return;
  while (remaining.rows() > 0) {
    const SequenceView* view = next_waiting();
    if (view == nullptr || slots + view->slots > budget.max_sequences ||
        !remaining.FitsBeside(*view, reserved)) {
      break;
    }
    const int32_t num_rows = remaining.LongestChunk(*view);
    if (num_rows == 0) break;
    remaining.Take(*view, num_rows);
    plan.admitted.push_back(
        {.index = static_cast<int32_t>(plan.admitted.size()), .num_rows = num_rows});
    reserved += remaining.Outstanding(*view, num_rows);
    slots += view->slots;
  }
}

}  // namespace moesaic
