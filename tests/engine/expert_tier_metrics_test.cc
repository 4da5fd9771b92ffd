#include "engine/expert_tier_metrics.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

using testing::HasSubstr;

TEST(ExpertTierMetricsTest, CountersGrowByWhatIsNewAndGaugesFollow) {
  MetricsRegistry registry;
  ExpertTierMetrics tier(registry);
  ExpertMemoryMetrics now;
  now.expert_hits = 3;
  now.expert_partial_hits = 2;
  now.expert_misses = 5;
  now.demanded_bytes = 4096;
  now.prefetched_bytes = 8192;
  now.wasted_bytes = 100;
  now.evictions = 7;
  now.failed_copies = 1;
  now.cancelled_prefetches = 6;
  now.stall_seconds = 0.5;
  now.budget_bytes = 65536;
  now.used_bytes = 16384;
  now.high_water_bytes = 32768;
  tier.Update(now);
  tier.Update(now);
  now.expert_hits = 10;
  now.stall_seconds = 0.75;
  now.used_bytes = 0;
  tier.Update(now);
  const std::string text = registry.Render();
  for (const char* line :
       {"moesaic_expert_lookups_total{result=\"hit\"} 10\n",
        "moesaic_expert_lookups_total{result=\"partial\"} 2\n",
        "moesaic_expert_lookups_total{result=\"miss\"} 5\n",
        "moesaic_expert_copy_bytes_total{kind=\"demanded\"} 4096\n",
        "moesaic_expert_copy_bytes_total{kind=\"prefetched\"} 8192\n",
        "moesaic_expert_copy_bytes_total{kind=\"wasted\"} 100\n",
        "moesaic_expert_evictions_total 7\n", "moesaic_expert_failed_copies_total 1\n",
        "moesaic_expert_cancelled_prefetches_total 6\n",
        "moesaic_expert_stall_seconds_total 0.75\n", "moesaic_expert_memory_budget_bytes 65536\n",
        "moesaic_expert_memory_used_bytes 0\n", "moesaic_expert_memory_high_water_bytes 32768\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

}  // namespace
}  // namespace moesaic
