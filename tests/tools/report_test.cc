#include "tools/bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/json.h"

namespace moesaic::bench {
namespace {

using testing::HasSubstr;

class ReportTest : public testing::Test {
 protected:
  ReportTest() {
    traces_[0].sent_s = 1;
    traces_[0].chunk_s = {1.25, 1.5};
    traces_[0].chunk_tokens = {1, 1};
    traces_[0].output_tokens = 2;
    traces_[0].ok = true;
    traces_[1].error = "code 8: full \xff";
    metrics_ = ComputeServingMetrics(traces_, percentiles_, {});
  }

  std::vector<RequestTrace> traces_ = std::vector<RequestTrace>(2);
  std::vector<double> percentiles_ = {50, 99.9};
  RunSetup setup_ = {{"seed", "7"}};
  ServingMetrics metrics_;
};

TEST_F(ReportTest, TableNamesEveryFigure) {
  const std::string table = FormatTable(setup_, metrics_, percentiles_);
  for (const char* text :
       {"seed", "1 completed, 1 failed", "p99.9", "TTFT, ms", "250.00", "TPOT", "ITL", "E2E"}) {
    EXPECT_THAT(table, HasSubstr(text));
  }
}

TEST_F(ReportTest, JsonHoldsFiguresErrorsAndOnRequestTheTimes) {
  const Json brief =
      *ParseJson(FormatJson(setup_, metrics_, percentiles_, traces_, false), "report");
  EXPECT_EQ(brief["setup"]["seed"], "7");
  EXPECT_EQ(brief["failed"], 1);
  EXPECT_DOUBLE_EQ(brief["ttft_ms"]["p99.9"].get<double>(), 250.0);
  EXPECT_EQ(brief["errors"].size(), 1u);
  EXPECT_FALSE(brief.contains("requests"));
  const Json detailed =
      *ParseJson(FormatJson(setup_, metrics_, percentiles_, traces_, true), "report");
  EXPECT_EQ(detailed["requests"].size(), 2u);
  EXPECT_DOUBLE_EQ(detailed["requests"][0]["chunk_s"][1].get<double>(), 1.5);
}

}  // namespace
}  // namespace moesaic::bench
