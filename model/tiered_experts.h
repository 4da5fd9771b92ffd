#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/kernel_table.h"
#include "memory/expert_memory.h"
#include "model/model.h"

namespace moesaic {

// Runs the routed experts of a layer of which only some stripes are in the fast tier: what is there
// at once, what is missing as it lands. The result is bit for bit that of one call with all of
// them: an expert's sum runs over its stripes in ascending order, and experts are added in
// ascending order, out of a buffer of sums for those that are ready before their turn.
//
// Owner and thread: the model's. Lifetime: within that of `memory` and `sums`. No allocation after
// the constructor, but for failures.
class TieredExperts {
 public:
  // `sums`: float32 [sums_rows, hidden].
  TieredExperts(ExpertMemory& memory, float* sums, int64_t sums_rows);

  // Rows of sums: for all entries of a decode step, so that no expert waits for another's turn; a
  // larger step runs its experts in groups that fit, at least one at a time.
  static int64_t SumsRows(int64_t max_rows, int64_t top_k) {
    return std::min(max_rows * top_k,
                    std::max(max_rows, std::min<int64_t>(max_rows, kDecodeRows) * top_k));
  }
  // Stripes of an expert that are run in one call: what the activations between an expert's
  // projections are kept for.
  static int64_t MaxWorkStripes(int64_t num_stripes) {
    return std::min<int64_t>(num_stripes, kWorkStripes);
  }

  // `args` is complete but for stripes, works and max_work_stripes. Rows of experts that could not
  // be brought are appended to `failures`, and their output is unfinished; all others are right.
  void Run(int32_t layer,
           int64_t tick,
           kernels::ExpertFfnArgs args,
           kernels::ExpertFfnFn expert_ffn,
           Stream& stream,
           std::vector<RowFailure>& failures);

 private:
  static constexpr int64_t kDecodeRows = 64;
  static constexpr int64_t kWorkStripes = 8;

  // An expert of the running group.
  struct Progress {
    int32_t stripes_done = 0;
    float* sums = nullptr;
    bool failed = false;
  };

  size_t GroupEnd(size_t begin, const kernels::ExpertRows& routed) const;
  // Asks for the experts of the group after, that they come while this one runs.
  void PrefetchGroup(int32_t layer,
                     int64_t tick,
                     std::span<const ExpertMemory::ActiveExpert> group);
  void RunGroup(std::span<const ExpertMemory::ActiveExpert> group,
                kernels::ExpertFfnArgs& args,
                kernels::ExpertFfnFn expert_ffn,
                Stream& stream,
                std::vector<RowFailure>& failures);
  // Runs stripes that are ready, and adds what then has its turn.
  void RunReady(std::span<const ExpertMemory::ActiveExpert> group,
                std::span<const ExpertMemory::ReadyStripes> ready,
                kernels::ExpertFfnArgs& args,
                kernels::ExpertFfnFn expert_ffn,
                Stream& stream);
  void FailExperts(std::span<const ExpertMemory::ActiveExpert> group,
                   const absl::Status& status,
                   const kernels::ExpertRows& routed,
                   std::vector<RowFailure>& failures);

  ExpertMemory& memory_;
  float* const sums_;
  const int64_t sums_rows_;

  std::vector<ExpertMemory::ActiveExpert> active_;  // of the running layer, ascending
  std::vector<Progress> progress_;                  // of the running group
  std::vector<const void*> stripes_;                // [num_experts, num_stripes]
  std::vector<kernels::ExpertWork> works_;
  std::vector<ExpertMemory::ReadyStripes> left_;  // of what is ready: not yet run
  size_t next_to_add_ = 0;                        // of the running group
  PrefetchPlan plan_;
};

}  // namespace moesaic
