#include "tools/bench/transitions.h"

#include <gtest/gtest.h>

#include "tests/core/routing_trace_files.h"

namespace moesaic::bench {
namespace {

TEST(TransitionsTest, CountsPairsOfAdjacentLayersAndTheirLikeliestSuccessors) {
  const std::filesystem::path path = TracePath("transitions");
  WriteSmallTrace(path, /*has_weights=*/false);  // only step 10 has both layers
  const auto trace = ReadRoutingTrace(path);
  ASSERT_TRUE(trace.ok()) << trace.status();
  const std::vector<LayerTransitions> all = CountTransitions(*trace);
  ASSERT_EQ(all.size(), 1u);
  // {0, 7} -> {4, 5} and {2, 3} -> {5, 6}.
  EXPECT_EQ(all[0].total, 8u);
  EXPECT_EQ(all[0].counts[0 * 8 + 4], 1u);
  EXPECT_EQ(all[0].counts[3 * 8 + 6], 1u);
  EXPECT_EQ(all[0].counts[3 * 8 + 4], 0u);
  EXPECT_DOUBLE_EQ(all[0].share[0], 0.5);
  EXPECT_DOUBLE_EQ(all[0].share[1], 1);
  EXPECT_DOUBLE_EQ(all[0].share[2], 1);
  std::filesystem::remove(path);
}

TEST(TransitionsTest, AnEmptyTraceHasNoFlow) {
  RoutingTrace trace;
  trace.header = {.num_layers = 3, .num_experts = 4, .top_k = 1};
  const std::vector<LayerTransitions> all = CountTransitions(trace);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].total, 0u);
  EXPECT_EQ(all[1].share[2], 0);
}

}  // namespace
}  // namespace moesaic::bench
