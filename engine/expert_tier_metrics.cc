#include "engine/expert_tier_metrics.h"

namespace moesaic {
namespace {

constexpr const char* kExperts = "moesaic_expert_lookups_total";
constexpr const char* kExpertsHelp =
    "Experts that a layer asked for, by how much of them was in the fast tier";
constexpr const char* kBytes = "moesaic_expert_copy_bytes_total";
constexpr const char* kBytesHelp =
    "Bytes copied into the fast tier, by what for; wasted: prefetched and evicted unused, counted "
    "again";

}  // namespace

ExpertTierMetrics::ExpertTierMetrics(MetricsRegistry& registry)
    : stall_seconds_(registry.AddCounter("moesaic_expert_stall_seconds_total",
                                         "Time that layers waited for copies of experts")),
      busy_seconds_(registry.AddCounter("moesaic_expert_copy_busy_seconds_total",
                                        "Time in which at least one copy was under way")),
      budget_bytes_(
          registry.AddGauge("moesaic_expert_memory_budget_bytes", "Slots of the fast tier")),
      used_bytes_(registry.AddGauge("moesaic_expert_memory_used_bytes",
                                    "Slots of the fast tier that hold a stripe or await one")),
      high_water_bytes_(registry.AddGauge("moesaic_expert_memory_high_water_bytes",
                                          "Most of the fast tier that was ever used")) {
  using Metrics = ExpertMemoryMetrics;
  const auto add = [&](const char* name, const char* help, const char* label, const char* value,
                       int64_t Metrics::*field) {
    series_.push_back({registry.AddCounter(name, help, {{label, value}}), field});
  };
  add(kExperts, kExpertsHelp, "result", "hit", &Metrics::expert_hits);
  add(kExperts, kExpertsHelp, "result", "partial", &Metrics::expert_partial_hits);
  add(kExperts, kExpertsHelp, "result", "miss", &Metrics::expert_misses);
  add(kBytes, kBytesHelp, "kind", "demanded", &Metrics::demanded_bytes);
  add(kBytes, kBytesHelp, "kind", "prefetched", &Metrics::prefetched_bytes);
  add(kBytes, kBytesHelp, "kind", "wasted", &Metrics::wasted_bytes);
  const auto add_plain = [&](const char* name, const char* help, int64_t Metrics::*field) {
    series_.push_back({registry.AddCounter(name, help), field});
  };
  add_plain("moesaic_expert_evictions_total", "Stripes that lost their slot to another",
            &Metrics::evictions);
  add_plain("moesaic_expert_failed_copies_total", "Copies of stripes that failed",
            &Metrics::failed_copies);
  add_plain("moesaic_expert_cancelled_prefetches_total", "Queued prefetches that were dropped",
            &Metrics::cancelled_prefetches);
}

void ExpertTierMetrics::Update(const ExpertMemoryMetrics& now) {
  for (const Series& series : series_) {
    series.counter.Increment(static_cast<double>(now.*series.field - last_.*series.field));
  }
  stall_seconds_.Increment(now.stall_seconds - last_.stall_seconds);
  busy_seconds_.Increment(now.copies.busy_seconds - last_.copies.busy_seconds);
  budget_bytes_.Set(static_cast<double>(now.budget_bytes));
  used_bytes_.Set(static_cast<double>(now.used_bytes));
  high_water_bytes_.Set(static_cast<double>(now.high_water_bytes));
  last_ = now;
}

}  // namespace moesaic
