#pragma once

#include <cstdint>
#include <vector>

#include "core/routing_trace.h"
#include "memory/expert_policy.h"

namespace moesaic::bench {

struct KeyRows {
  int32_t key = 0;
  int32_t rows = 0;
};

// A trace as the sequence of expert uses: tick by tick, each distinct expert once. Steps are
// numbered anew without gaps, so that a tick is `step * num_layers + layer`. It forecasts
// perfectly. Thread: read-only after construction.
class TraceUses final : public UseForecast {
 public:
  // The first `max_steps` steps, or all when it is 0.
  TraceUses(const RoutingTrace& trace, int64_t max_steps);

  const PolicyShape& shape() const { return shape_; }
  int64_t num_steps() const { return static_cast<int64_t>(uses_.size()) / shape_.num_layers; }
  int64_t num_ticks() const { return static_cast<int64_t>(uses_.size()); }
  // In ascending key.
  const std::vector<KeyRows>& At(int64_t tick) const { return uses_[tick]; }
  int64_t RowsAt(int64_t tick) const { return rows_[tick]; }
  // Ticks at which `key` is used, ascending.
  const std::vector<int64_t>& TicksOf(int32_t key) const { return ticks_[key]; }

  int64_t NextUse(int32_t key, int64_t tick) const override;

 private:
  PolicyShape shape_;
  std::vector<std::vector<KeyRows>> uses_;   // [tick]
  std::vector<int64_t> rows_;                // [tick]
  std::vector<std::vector<int64_t>> ticks_;  // [key]
};

}  // namespace moesaic::bench
