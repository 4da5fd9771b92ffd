#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"

namespace moesaic {

// What the batcher knows of a sequence.
struct SequenceView {
  int32_t num_tokens = 0;  // known: prompt and output
  int32_t computed_tokens =
      0;                    // in the KV cache; of a waiting sequence, what a cached prefix gives
  int32_t logits_from = 0;  // every row at this position or later needs logits
  int32_t blocks_held = 0;  // entries of its block table that need no new block
  // Free blocks it takes beside its growth: a shared block to copy, or a cached prefix that nobody
  // holds.
  int32_t extra_blocks = 0;
  int32_t slots = 1;  // sequences it will become: a request's n before its prompt is computed
};

// What one step may use.
struct StepBudget {
  int32_t max_rows = 0;
  int32_t max_logits_rows = 0;
  int32_t max_sequences = 0;
  int32_t free_blocks = 0;
  // KV blocks that one sequence can need at a time however long it is (sliding window).
  int32_t max_sequence_blocks = std::numeric_limits<int32_t>::max();
  bool admit = true;  // false in a step that preempted: what was freed is for those who lacked it
};

struct ScheduledRows {
  int32_t index = 0;  // into `running`, or the how-manieth waiting sequence
  int32_t num_rows = 0;
};

struct StepPlan {
  // Into `running`: this sequence must give up its blocks first, then plan again. -1: none, the
  // plan stands. Decided one at a time, since only the block manager knows which of a victim's
  // blocks others share.
  int32_t preempt = -1;
  std::vector<ScheduledRows> running;
  std::vector<ScheduledRows> admitted;  // waiting sequences 0, 1, ... in order
};

// Chooses the rows of the next step. Continuous batching with chunked prefill:
// 1. each decoding sequence gets its row; when KV blocks run out, the latest-arrived sequence is
//    preempted;
// 2. running prefills get the rest of the rows, first come first served, as long a chunk as fits;
// 3. waiting sequences are admitted in order while all their known tokens fit beside what the
//    running ones still have to compute, so that an admission does not cause a preemption at once.
//
// Guarantee: if anything is running or waiting, each sequence alone fits in the KV cache, and
// max_rows and max_logits_rows are at least max_sequences, then planning ends with at least one
// row.
//
// `running` is in order of arrival. `next_waiting` yields the waiting sequences in order, null
// after the last; it is asked only as far as needed. `plan` is overwritten; its vectors keep their
// capacity.
void PlanStep(const StepBudget& budget,
              std::span<const SequenceView> running,
              absl::FunctionRef<const SequenceView*()> next_waiting,
              StepPlan& plan);

}  // namespace moesaic
