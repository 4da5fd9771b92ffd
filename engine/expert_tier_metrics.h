#pragma once

#include "base/metrics.h"
#include "memory/expert_memory.h"

namespace moesaic {

// Where the bytes of experts and the waiting for them went, in the registry. Owner and thread:
// engine.
class ExpertTierMetrics {
 public:
  explicit ExpertTierMetrics(MetricsRegistry& registry);

  void Update(const ExpertMemoryMetrics& now);

 private:
  struct Series {
    prometheus::Counter& counter;
    int64_t ExpertMemoryMetrics::*field;
  };

  std::vector<Series> series_;
  prometheus::Counter& stall_seconds_;
  prometheus::Counter& busy_seconds_;
  prometheus::Gauge& budget_bytes_;
  prometheus::Gauge& used_bytes_;
  prometheus::Gauge& high_water_bytes_;
  ExpertMemoryMetrics last_;
};

}  // namespace moesaic
