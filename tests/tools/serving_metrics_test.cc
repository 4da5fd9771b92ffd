#include "tools/bench/serving_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic::bench {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

constexpr double kTolerance = 1e-9;  // of sums of a few doubles

RequestTrace Trace(double sent, std::vector<double> chunks, int output_tokens) {
  RequestTrace trace;
  trace.intended_s = sent;
  trace.sent_s = sent;
  trace.chunk_tokens.assign(chunks.size(), 1);
  trace.chunk_s = std::move(chunks);
  trace.prompt_tokens = 10;
  trace.output_tokens = output_tokens;
  trace.ok = true;
  return trace;
}

TEST(SummarizeTest, PercentilesInterpolateLikeNumpy) {
  const double asked[] = {0, 25, 50, 99, 100};
  const Distribution values = Summarize({4, 1, 3, 2}, asked);
  EXPECT_EQ(values.count, 4u);
  EXPECT_DOUBLE_EQ(values.mean, 2.5);
  EXPECT_NEAR(values.stddev, 1.118033988749895, kTolerance);
  EXPECT_THAT(values.percentiles, ElementsAre(1, 1.75, 2.5, DoubleNear(3.97, kTolerance), 4));
}

TEST(SummarizeTest, NoValuesAreZeros) {
  const double asked[] = {50};
  EXPECT_THAT(Summarize({}, asked).percentiles, ElementsAre(0));
}

TEST(ServingMetricsTest, FollowsTheDefinitions) {
  // First request: tokens at 1.5, 1.7 and, two in one message, 2.3. Second: one token. Third:
  // failed.
  std::vector<RequestTrace> traces = {Trace(1.0, {1.5, 1.7, 2.3}, 4), Trace(2.0, {2.2}, 1),
                                      Trace(2.0, {}, 0)};
  traces[1].intended_s = 1.9;
  traces[2].ok = false;
  const double asked[] = {50};
  const ServingMetrics metrics = ComputeServingMetrics(traces, asked, {});
  EXPECT_EQ(metrics.completed, 2u);
  EXPECT_EQ(metrics.failed, 1u);
  EXPECT_NEAR(metrics.duration_s, 1.3, kTolerance);  // sent at 1.0, last message at 2.3
  EXPECT_EQ(metrics.output_tokens, 5);
  EXPECT_NEAR(metrics.output_tokens_per_s, 5 / 1.3, kTolerance);
  EXPECT_NEAR(metrics.total_tokens_per_s, 25 / 1.3, kTolerance);
  EXPECT_NEAR(metrics.ttft_ms.mean, 350, 1e-6);
  EXPECT_EQ(metrics.tpot_ms.count, 1u);  // the single-token request has none
  EXPECT_NEAR(metrics.tpot_ms.mean, 800.0 / 3, 1e-6);
  EXPECT_EQ(metrics.itl_ms.count, 2u);  // gaps between messages: 200 and 600
  EXPECT_NEAR(metrics.itl_ms.mean, 400, 1e-6);
  EXPECT_NEAR(metrics.e2el_ms.max, 1300, 1e-6);
  EXPECT_NEAR(metrics.lateness_ms.max, 100, 1e-6);
  EXPECT_FALSE(metrics.goodput_per_s.has_value());
}

TEST(ServingMetricsTest, GoodputCountsRequestsThatMeetEveryObjective) {
  const std::vector<RequestTrace> traces = {Trace(0, {0.1, 0.2}, 2), Trace(0, {0.3, 0.4}, 2),
                                            Trace(0, {0.1, 1.0}, 2)};
  Objectives objectives;
  objectives.ttft_ms = 200;
  EXPECT_NEAR(*ComputeServingMetrics(traces, {}, objectives).goodput_per_s, 2, kTolerance);
  objectives.tpot_ms = 200;
  EXPECT_NEAR(*ComputeServingMetrics(traces, {}, objectives).goodput_per_s, 1, kTolerance);
  objectives.e2el_ms = 50;
  EXPECT_NEAR(*ComputeServingMetrics(traces, {}, objectives).goodput_per_s, 0, kTolerance);
}

TEST(ServingMetricsTest, AllFailedIsNotADivisionByZero) {
  RequestTrace failed;
  failed.error = "code 14";
  const ServingMetrics metrics = ComputeServingMetrics({&failed, 1}, {}, {});
  EXPECT_EQ(metrics.failed, 1u);
  EXPECT_EQ(metrics.output_tokens_per_s, 0);
}

}  // namespace
}  // namespace moesaic::bench
