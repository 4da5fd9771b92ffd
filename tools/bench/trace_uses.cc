#include "tools/bench/trace_uses.h"

#include <algorithm>

namespace moesaic::bench {

TraceUses::TraceUses(const RoutingTrace& trace, int64_t max_steps)
    : shape_{trace.header.num_layers, trace.header.num_experts} {
  ticks_.resize(static_cast<size_t>(shape_.num_layers) * shape_.num_experts);
  std::vector<ExpertRows> distinct;
  int64_t last_step = -1;
  int64_t steps = 0;
  for (const RoutingTrace::Record& record : trace.records) {
    if (steps == 0 || record.step != last_step) {
      if (max_steps > 0 && steps == max_steps) break;
      last_step = record.step;
      ++steps;
      uses_.resize(steps * shape_.num_layers);
      rows_.resize(uses_.size());
    }
    const int64_t tick = (steps - 1) * shape_.num_layers + record.layer;
    rows_[tick] = record.num_rows;
    trace.DistinctExperts(record, distinct);
    for (const ExpertRows& expert : distinct) {
      const int32_t key = record.layer * shape_.num_experts + expert.expert;
      uses_[tick].push_back({key, expert.rows});
      ticks_[key].push_back(tick);
    }
  }
}

int64_t TraceUses::NextUse(int32_t key, int64_t tick) const {
  const std::vector<int64_t>& ticks = ticks_[key];
  const auto next = std::upper_bound(ticks.begin(), ticks.end(), tick);
  return next == ticks.end() ? kNever : *next;
}

}  // namespace moesaic::bench
