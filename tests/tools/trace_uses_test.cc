#include "tools/bench/trace_uses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/routing_trace_files.h"

namespace moesaic::bench {
namespace {

TEST(TraceUsesTest, NumbersStepsAnewAndKnowsNextUses) {
  const std::filesystem::path path = TracePath("uses");
  WriteSmallTrace(path, /*has_weights=*/false);  // steps 10 (layers 0, 1), 11 (1) and 13 (0)
  const auto trace = ReadRoutingTrace(path);
  ASSERT_TRUE(trace.ok()) << trace.status();
  const TraceUses uses(*trace, 0);
  EXPECT_EQ(uses.num_steps(), 3);
  EXPECT_EQ(uses.num_ticks(), 6);
  ASSERT_EQ(uses.At(1).size(), 3u);
  EXPECT_EQ(uses.At(1)[1].key, 8 + 5);
  EXPECT_EQ(uses.At(1)[1].rows, 2);
  EXPECT_TRUE(uses.At(2).empty());
  EXPECT_EQ(uses.RowsAt(3), 2);
  EXPECT_THAT(uses.TicksOf(7), testing::ElementsAre(0, 4));
  EXPECT_EQ(uses.NextUse(7, 0), 4);
  EXPECT_EQ(uses.NextUse(7, 4), UseForecast::kNever);
  EXPECT_EQ(uses.NextUse(8 + 6, 1), 3);
  EXPECT_EQ(TraceUses(*trace, 1).num_ticks(), 2);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace moesaic::bench
