#include "tools/bench/replay.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/routing_trace.h"
#include "tools/bench/optimum_lp.h"

namespace moesaic::bench {
namespace {

// `experts[step][layer]` are the experts that one row chooses.
RoutingTrace MakeTrace(int32_t num_experts,
                       const std::vector<std::vector<std::vector<uint16_t>>>& experts) {
  RoutingTrace trace;
  trace.header.num_layers = static_cast<int32_t>(experts[0].size());
  trace.header.num_experts = num_experts;
  trace.header.top_k = static_cast<int32_t>(experts[0][0].size());
  trace.requests.push_back({});
  trace.runs.push_back({0, 0, 1});
  size_t rows = 0;
  for (size_t step = 0; step < experts.size(); ++step) {
    for (size_t layer = 0; layer < experts[step].size(); ++layer) {
      trace.records.push_back({.step = static_cast<int64_t>(step),
                               .layer = static_cast<int32_t>(layer),
                               .num_rows = 1,
                               .num_runs = 1,
                               .first_row = rows++});
      const std::vector<uint16_t>& chosen = experts[step][layer];
      trace.experts.insert(trace.experts.end(), chosen.begin(), chosen.end());
    }
  }
  return trace;
}

// Every layer uses its two experts in every step.
RoutingTrace CyclicSweep(int32_t layers, int32_t steps) {
  return MakeTrace(2, std::vector(steps, std::vector<std::vector<uint16_t>>(
                                             layers, {uint16_t{0}, uint16_t{1}})));
}

RoutingTrace RandomTrace(int32_t layers, int32_t num_experts, int32_t steps, uint32_t seed) {
  uint32_t random = seed;
  const auto draw = [&random](int32_t bound) {
    random = random * 1664525u + 1013904223u;
    return static_cast<uint16_t>((random >> 8) % static_cast<uint32_t>(bound));
  };
  std::vector<std::vector<std::vector<uint16_t>>> experts(steps);
  for (auto& step : experts) {
    for (int32_t layer = 0; layer < layers; ++layer) {
      const uint16_t a = draw(num_experts - 1);
      step.push_back({a, static_cast<uint16_t>(a + 1 + draw(num_experts - 1 - a))});
    }
  }
  return MakeTrace(num_experts, experts);
}

// A copy of a stripe takes 1 s, its computation 0.25 s, the rest of a layer 0.5 s.
constexpr ReplayTimes kTimes = {.stripe_bytes = 1000,
                                .stripes_per_expert = 2,
                                .dense_layer_s = 0.5,
                                .stripe_s = 0.25,
                                .stripe_row_s = 0,
                                .link_bytes_per_s = 1000};

ReplayResult Simulate(const TraceUses& uses,
                      ReplayOptions options,
                      const ReplayTimes& times = kTimes) {
  const auto result = Replay(uses, times, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *result;
}

TEST(ReplayTest, FollowsVirtualTimeByHand) {
  const RoutingTrace trace = MakeTrace(4, {{{0}}, {{0}}, {{1}}});
  const ReplayResult result = Simulate(TraceUses(trace, 0), {.budget_stripes = 4});
  // Step 0: 0.5 + two copies (2 s), the second's computation after it. Step 1: 0.5 + 0.5. Step 2 as
  // step 0.
  EXPECT_DOUBLE_EQ(result.time_s, 2.75 + 1.0 + 2.75);
  // The first stripe is computed while the second is copied.
  EXPECT_DOUBLE_EQ(result.stall_s, 2 * (1 + 0.75));
  EXPECT_EQ(result.used_stripes, 6);
  EXPECT_EQ(result.hit_stripes, 2);
  EXPECT_EQ(result.demand_stripes, 4);
  EXPECT_EQ(result.demand_experts, 2);
}

TEST(ReplayTest, OnDemandLoadsEachUseAndFullBudgetEachExpertOnce) {
  const RoutingTrace trace = RandomTrace(3, 8, 50, 1);
  const TraceUses uses(trace, 0);
  ReplayOptions options = {.policy = ExpertPolicyKind::kOnDemand, .budget_stripes = 48};
  EXPECT_EQ(Simulate(uses, options).demand_stripes, 50 * 3 * 2 * 2);
  for (const ExpertPolicyKind policy :
       {ExpertPolicyKind::kFifo, ExpertPolicyKind::kLru, ExpertPolicyKind::kLfu,
        ExpertPolicyKind::kFuture, ExpertPolicyKind::kBelady}) {
    options.policy = policy;
    EXPECT_EQ(Simulate(uses, options).demand_stripes, 3 * 8 * 2);
  }
}

TEST(ReplayTest, EveryPolicyStreamsThroughOneStripe) {
  const RoutingTrace trace = RandomTrace(2, 4, 20, 2);
  const TraceUses uses(trace, 0);
  for (const ExpertPolicyKind policy :
       {ExpertPolicyKind::kOnDemand, ExpertPolicyKind::kFifo, ExpertPolicyKind::kLru,
        ExpertPolicyKind::kLfu, ExpertPolicyKind::kBelady}) {
    const ReplayResult result = Simulate(uses, {.policy = policy, .budget_stripes = 1});
    EXPECT_GT(result.demand_stripes, 0);
    EXPECT_EQ(result.demand_stripes + result.hit_stripes, result.used_stripes);
  }
  EXPECT_EQ(Replay(uses, kTimes, {.budget_stripes = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ReplayTest, LruHasNoHitsOnACyclicSweepUntilAllFitsAndTheDefaultDoes) {
  const RoutingTrace trace = CyclicSweep(8, 20);
  const TraceUses uses(trace, 0);
  constexpr int64_t kAll = 8 * 2 * 2;
  for (const int64_t budget : {kAll / 8, kAll / 4, kAll / 2, kAll * 3 / 4, kAll - 4}) {
    SCOPED_TRACE(budget);
    EXPECT_EQ(
        Simulate(uses, {.policy = ExpertPolicyKind::kLru, .budget_stripes = budget}).hit_stripes,
        0);
    const ReplayResult lfu =
        Simulate(uses, {.policy = ExpertPolicyKind::kLfu, .budget_stripes = budget});
    const auto optimum = OptimalStripes(uses, kTimes.stripes_per_expert, budget);
    ASSERT_TRUE(optimum.ok());
    EXPECT_LE(lfu.demand_stripes, *optimum * 11 / 10);
  }
  EXPECT_GT(Simulate(uses, {.policy = ExpertPolicyKind::kLru, .budget_stripes = kAll}).hit_stripes,
            0);
}

TEST(ReplayTest, NothingBeatsTheOptimum) {
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    const RoutingTrace trace = RandomTrace(4, 8, 60, seed);
    const TraceUses uses(trace, 0);
    for (const int64_t budget : {6, 16, 32, 48}) {
      const auto optimum = OptimalStripes(uses, kTimes.stripes_per_expert, budget);
      ASSERT_TRUE(optimum.ok());
      for (const ExpertPolicyKind policy :
           {ExpertPolicyKind::kFifo, ExpertPolicyKind::kLru, ExpertPolicyKind::kLfu,
            ExpertPolicyKind::kFuture, ExpertPolicyKind::kBelady}) {
        EXPECT_GE(Simulate(uses, {.policy = policy, .budget_stripes = budget}).demand_stripes,
                  *optimum);
      }
    }
  }
}

TEST(ReplayTest, OraclePrefetchHidesCopiesAndWastesNothing) {
  const RoutingTrace trace = RandomTrace(4, 8, 60, 3);
  const TraceUses uses(trace, 0);
  ReplayTimes times = kTimes;
  times.link_bytes_per_s = 4000;
  ReplayOptions options = {.policy = ExpertPolicyKind::kBelady, .budget_stripes = 24};
  const ReplayResult without = Simulate(uses, options, times);
  options.lookahead = 8;
  const ReplayResult with = Simulate(uses, options, times);
  EXPECT_LT(with.stall_s, without.stall_s / 2);
  EXPECT_LT(with.time_s, without.time_s);
  EXPECT_GT(with.prefetched_stripes, 0);
  EXPECT_EQ(with.wasted_stripes, 0);
  EXPECT_EQ(with.hit_stripes + with.late_stripes + with.demand_stripes, with.used_stripes);
}

TEST(ReplayTest, IsDeterministic) {
  const RoutingTrace trace = RandomTrace(4, 8, 60, 4);
  const TraceUses uses(trace, 0);
  const ReplayOptions options = {.budget_stripes = 20, .lookahead = 3};
  const ReplayResult a = Simulate(uses, options);
  const ReplayResult b = Simulate(uses, options);
  EXPECT_EQ(a.time_s, b.time_s);
  EXPECT_EQ(a.loaded_stripes(), b.loaded_stripes());
}

// The target that the default policy is held to, on the committed skewed trace.
TEST(ReplayTest, LfuIsTheBestReactivePolicyOnTheShippedTrace) {
  const auto trace =
      ReadRoutingTrace(std::string(MOESAIC_SOURCE_DIR) + "/benchmarks/traces/zipf.trace");
  ASSERT_TRUE(trace.ok()) << trace.status();
  const TraceUses uses(*trace, 0);
  const int64_t all = int64_t{uses.shape().num_layers} * uses.shape().num_experts;
  ReplayTimes times;
  for (const int64_t eighths : {1, 2, 4, 6}) {
    const auto loads = [&](ExpertPolicyKind policy) {
      return Simulate(uses, {.policy = policy, .budget_stripes = all * eighths / 8}, times)
          .demand_stripes;
    };
    EXPECT_LT(loads(ExpertPolicyKind::kLfu), loads(ExpertPolicyKind::kLru));
    EXPECT_LT(loads(ExpertPolicyKind::kLfu), loads(ExpertPolicyKind::kFifo));
  }
}

#ifdef MOESAIC_HIGHS

TEST(OptimumLpTest, IsBeladyWhereSizesAreEqual) {
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    const RoutingTrace trace = RandomTrace(4, 8, 40, seed);
    const TraceUses uses(trace, 0);
    for (const int64_t budget : {2, 8, 16, 24}) {
      const auto stripes = [&](int64_t slots) { return *OptimalStripes(uses, 1, slots); };
      const auto least = LeastBytes(uses, std::vector<int64_t>(4, 1000), budget * 1000);
      ASSERT_TRUE(least.ok()) << least.status();
      // One slot is the window that a layer streams through.
      EXPECT_LE(*least, static_cast<double>(stripes(budget)) * 1000 + 1e-3);
      EXPECT_GE(*least, static_cast<double>(stripes(budget + 1)) * 1000 - 1e-3);
    }
  }
}

TEST(OptimumLpTest, KeepsInPartWhatDoesNotFitWhole) {
  // One expert a layer, used in two steps: all of layer 0 (3000 bytes) and half of layer 1 fit.
  const RoutingTrace trace =
      MakeTrace(2, std::vector(2, std::vector<std::vector<uint16_t>>(2, {uint16_t{0}})));
  const auto least = LeastBytes(TraceUses(trace, 0), std::vector<int64_t>{3000, 1000}, 3500);
  ASSERT_TRUE(least.ok()) << least.status();
  EXPECT_NEAR(*least, 4000 + 500, 1e-3);
}

#else

TEST(OptimumLpTest, SaysThatHighsIsMissing) {
  const RoutingTrace trace = CyclicSweep(2, 2);
  EXPECT_EQ(LeastBytes(TraceUses(trace, 0), std::vector<int64_t>{1, 1}, 1).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

#endif

}  // namespace
}  // namespace moesaic::bench
