// The replay counts loads with tables of its own; the engine's ExpertCache, driven in the same
// order, must load the same stripes.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "memory/expert_cache.h"
#include "tools/bench/replay.h"

namespace moesaic::bench {
namespace {

using State = ExpertCache::State;

// Demanded stripes of `uses` with residents pinned until their layer ends.
int64_t DemandThroughCache(const TraceUses& uses, const StripeKeys& keys, ExpertCache& cache) {
  int64_t demanded = 0;
  std::vector<std::pair<int32_t, SlotRef>> pinned;
  for (int64_t tick = 0; tick < uses.num_ticks(); ++tick) {
    cache.Advance(tick);
    for (const KeyRows& use : uses.At(tick)) cache.Use(use.key, use.rows);
    pinned.clear();
    std::vector<KeyRows> missing;
    const auto pin = [&](int32_t stripe) { pinned.emplace_back(stripe, cache.Pin(stripe)); };
    for (const KeyRows& use : uses.At(tick)) {
      const int32_t held = cache.held_stripes(use.key);
      for (int32_t s = 0; s < held; ++s) pin(keys.FirstStripe(use.key) + s);
      if (held < keys.stripes_per_expert) missing.push_back(use);
    }
    std::stable_sort(missing.begin(), missing.end(),
                     [](const KeyRows& a, const KeyRows& b) { return a.rows > b.rows; });
    for (const KeyRows& use : missing) {
      const size_t before = pinned.size();
      const int32_t held = cache.held_stripes(use.key);
      for (int32_t s = held; s < keys.stripes_per_expert; ++s) {
        const int32_t stripe = keys.FirstStripe(use.key) + s;
        EXPECT_TRUE(cache.BeginDemand(stripe));
        cache.FinishLoad(stripe);
        pin(stripe);
        ++demanded;
      }
      if (held > 0) continue;
      for (size_t i = before; i < pinned.size(); ++i) {
        cache.Unpin(pinned[i].first, pinned[i].second);
      }
      pinned.resize(before);
    }
    for (const auto& [stripe, slot] : pinned) cache.Unpin(stripe, slot);
    if (cache.keeps_consumed()) continue;
    for (const KeyRows& use : uses.At(tick)) {
      for (int32_t s = 0; s < keys.stripes_per_expert; ++s) {
        const int32_t stripe = keys.FirstStripe(use.key) + s;
        if (cache.state(stripe) == State::kResident) cache.Release(stripe);
      }
    }
  }
  return demanded;
}

class ReplayCacheTest : public testing::TestWithParam<ExpertPolicyKind> {};

TEST_P(ReplayCacheTest, TheExpertCacheLoadsWhatTheReplayLoads) {
  const auto trace =
      ReadRoutingTrace(std::string(MOESAIC_SOURCE_DIR) + "/benchmarks/traces/zipf.trace");
  ASSERT_TRUE(trace.ok()) << trace.status();
  const TraceUses uses(*trace, 100);
  const PolicyShape& shape = uses.shape();
  const StripeKeys keys = {shape.num_layers, shape.num_experts, 3};
  for (const int32_t percent : {25, 50, 75}) {
    const int32_t slots = keys.stripes() * percent / 100;
    auto policy = MakeExpertPolicy(GetParam(), shape, &uses);
    ASSERT_TRUE(policy.ok()) << policy.status();
    ExpertCache cache(keys, StripeArena::WithoutMemory(slots, 4096), *std::move(policy));
    ReplayTimes times;
    times.stripes_per_expert = keys.stripes_per_expert;
    const auto replayed = Replay(uses, times, {.policy = GetParam(), .budget_stripes = slots});
    ASSERT_TRUE(replayed.ok()) << replayed.status();
    EXPECT_EQ(DemandThroughCache(uses, keys, cache), replayed->demand_stripes) << percent << " %";
    EXPECT_LE(cache.arena().high_water_slots(), slots);
  }
}

INSTANTIATE_TEST_SUITE_P(Policies,
                         ReplayCacheTest,
                         testing::Values(ExpertPolicyKind::kOnDemand,
                                         ExpertPolicyKind::kFifo,
                                         ExpertPolicyKind::kLru,
                                         ExpertPolicyKind::kLfu,
                                         ExpertPolicyKind::kFuture,
                                         ExpertPolicyKind::kBelady),
                         [](const auto& info) {
                           std::string name(ExpertPolicyName(info.param));
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace moesaic::bench
