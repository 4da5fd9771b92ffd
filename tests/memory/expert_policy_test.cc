#include "memory/expert_policy.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

constexpr auto kAny = [](int32_t) { return true; };

// A known sequence of uses, one list of keys per tick.
class KnownUses final : public UseForecast {
 public:
  explicit KnownUses(const std::vector<std::vector<int32_t>>& uses) {
    for (size_t tick = 0; tick < uses.size(); ++tick) {
      for (const int32_t key : uses[tick]) ticks_[key].push_back(static_cast<int64_t>(tick));
    }
  }
  int64_t NextUse(int32_t key, int64_t tick) const override {
    const auto it = ticks_.find(key);
    if (it == ticks_.end()) return kNever;
    const auto next = std::upper_bound(it->second.begin(), it->second.end(), tick);
    return next == it->second.end() ? kNever : *next;
  }

 private:
  std::map<int32_t, std::vector<int64_t>> ticks_;
};

class FixedForecast final : public UseForecast {
 public:
  int64_t NextUse(int32_t key, int64_t) const override {
    const auto it = next.find(key);
    return it == next.end() ? kNever : it->second;
  }
  uint64_t version() const override { return changes; }

  std::map<int32_t, int64_t> next;
  uint64_t changes = 0;
};

std::unique_ptr<ExpertPolicy> Make(ExpertPolicyKind kind,
                                   PolicyShape shape,
                                   const UseForecast* forecast = nullptr) {
  auto policy = MakeExpertPolicy(kind, shape, forecast);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

// Loads that `policy` needs with room for `capacity` experts.
int64_t CountLoads(ExpertPolicy& policy,
                   const std::vector<std::vector<int32_t>>& uses,
                   size_t capacity) {
  std::set<int32_t> resident;
  int64_t loads = 0;
  for (size_t tick = 0; tick < uses.size(); ++tick) {
    const std::vector<int32_t>& now = uses[tick];
    for (const int32_t key : now) policy.OnUse(key, static_cast<int64_t>(tick), 1);
    for (const int32_t key : now) {
      if (resident.contains(key)) continue;
      while (resident.size() >= capacity) {
        const int32_t victim =
            policy.ChooseVictim(static_cast<int64_t>(tick), [&](int32_t candidate) {
              return std::find(now.begin(), now.end(), candidate) == now.end();
            });
        if (victim < 0) break;
        EXPECT_EQ(resident.erase(victim), 1u) << "not resident: " << victim;
        policy.OnEvict(victim);
      }
      policy.OnLoad(key, static_cast<int64_t>(tick));
      resident.insert(key);
      ++loads;
    }
  }
  return loads;
}

// The least loads possible, by dynamic programming over the sets of residents; one use a tick.
int64_t LeastLoads(const std::vector<std::vector<int32_t>>& uses, size_t capacity) {
  std::map<std::set<int32_t>, int64_t> states = {{{}, 0}};
  for (const std::vector<int32_t>& now : uses) {
    std::map<std::set<int32_t>, int64_t> next;
    const auto reach = [&next](const std::set<int32_t>& state, int64_t loads) {
      const auto [it, fresh] = next.emplace(state, loads);
      if (!fresh) it->second = std::min(it->second, loads);
    };
    for (const auto& [state, loads] : states) {
      if (state.contains(now[0])) {
        reach(state, loads);
        continue;
      }
      std::set<int32_t> with = state;
      with.insert(now[0]);
      if (with.size() <= capacity) {
        reach(with, loads + 1);
        continue;
      }
      for (const int32_t victim : state) {
        std::set<int32_t> without = with;
        without.erase(victim);
        reach(without, loads + 1);
      }
    }
    states = std::move(next);
  }
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const auto& [state, loads] : states) least = std::min(least, loads);
  return least;
}

std::vector<std::vector<int32_t>> RandomUses(PolicyShape shape, int64_t ticks, uint32_t seed) {
  std::vector<std::vector<int32_t>> uses;
  uint32_t random = seed;
  const auto draw = [&random](int32_t bound) {
    random = random * 1664525u + 1013904223u;
    return static_cast<int32_t>((random >> 8) % static_cast<uint32_t>(bound));
  };
  for (int64_t tick = 0; tick < ticks; ++tick) {
    const auto layer = static_cast<int32_t>(tick % shape.num_layers);
    uses.push_back({layer * shape.num_experts + draw(shape.num_experts)});
  }
  return uses;
}

// Every layer uses all its experts in every step.
std::vector<std::vector<int32_t>> CyclicSweep(PolicyShape shape, int32_t steps) {
  std::vector<std::vector<int32_t>> uses;
  for (int32_t step = 0; step < steps; ++step) {
    for (int32_t layer = 0; layer < shape.num_layers; ++layer) {
      std::vector<int32_t>& now = uses.emplace_back();
      for (int32_t e = 0; e < shape.num_experts; ++e) now.push_back(layer * shape.num_experts + e);
    }
  }
  return uses;
}

TEST(ExpertPolicyTest, NamesGoBothWays) {
  for (const ExpertPolicyKind kind :
       {ExpertPolicyKind::kOnDemand, ExpertPolicyKind::kFifo, ExpertPolicyKind::kLru,
        ExpertPolicyKind::kLfu, ExpertPolicyKind::kFuture, ExpertPolicyKind::kBelady}) {
    const auto parsed = ParseExpertPolicy(ExpertPolicyName(kind));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, kind);
  }
  const auto unknown = ParseExpertPolicy("mru");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(unknown.status().message(),
            "unknown expert policy 'mru', expected one of on-demand, fifo, lru, lfu, future, "
            "belady");
}

TEST(ExpertPolicyTest, RefusesImpossibleShapesAndMissingForecasts) {
  for (const PolicyShape shape :
       {PolicyShape{0, 8}, PolicyShape{8, 0}, PolicyShape{-1, 8}, PolicyShape{1 << 20, 1 << 20}}) {
    EXPECT_EQ(MakeExpertPolicy(ExpertPolicyKind::kLru, shape, nullptr).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  for (const ExpertPolicyKind kind : {ExpertPolicyKind::kFuture, ExpertPolicyKind::kBelady}) {
    EXPECT_EQ(
        MakeExpertPolicy(kind, {2, 4}, nullptr).status().message(),
        std::string("expert policy ") + std::string(ExpertPolicyName(kind)) + " needs a forecast");
  }
}

TEST(ExpertPolicyTest, OnlyOnDemandGivesConsumedStripesBack) {
  EXPECT_FALSE(Make(ExpertPolicyKind::kOnDemand, {2, 4})->keeps_consumed());
  EXPECT_TRUE(Make(ExpertPolicyKind::kFifo, {2, 4})->keeps_consumed());
  EXPECT_TRUE(Make(ExpertPolicyKind::kLru, {2, 4})->keeps_consumed());
  EXPECT_TRUE(Make(ExpertPolicyKind::kLfu, {2, 4})->keeps_consumed());
}

TEST(ExpertPolicyTest, FifoEvictsTheFirstLoadedWhateverItsUse) {
  const auto policy = Make(ExpertPolicyKind::kFifo, {1, 8});
  for (const int32_t key : {3, 1, 2}) policy->OnLoad(key, 0);
  policy->OnUse(3, 1, 1);
  EXPECT_EQ(policy->ChooseVictim(1, kAny), 3);
  EXPECT_EQ(policy->ChooseVictim(1, [](int32_t key) { return key != 3; }), 1);
  policy->OnEvict(1);
  EXPECT_EQ(policy->ChooseVictim(1, [](int32_t key) { return key != 3; }), 2);
}

TEST(ExpertPolicyTest, LruEvictsTheLongestUnused) {
  const auto policy = Make(ExpertPolicyKind::kLru, {1, 8});
  for (const int32_t key : {3, 1, 2}) policy->OnLoad(key, 0);
  policy->OnUse(3, 1, 1);
  policy->OnUse(5, 1, 1);  // not resident
  EXPECT_EQ(policy->ChooseVictim(1, kAny), 1);
  EXPECT_EQ(policy->ChooseVictim(1, [](int32_t key) { return key == 3; }), 3);
}

TEST(ExpertPolicyTest, AVictimStaysRankedUntilItIsEvicted) {
  FixedForecast forecast;
  for (const ExpertPolicyKind kind :
       {ExpertPolicyKind::kOnDemand, ExpertPolicyKind::kFifo, ExpertPolicyKind::kLru,
        ExpertPolicyKind::kLfu, ExpertPolicyKind::kFuture, ExpertPolicyKind::kBelady}) {
    SCOPED_TRACE(ExpertPolicyName(kind));
    const auto policy = Make(kind, {2, 4}, &forecast);
    EXPECT_EQ(policy->ChooseVictim(0, kAny), -1);
    policy->OnUse(1, 0, 1);
    policy->OnLoad(1, 0);
    policy->OnLoad(6, 0);
    EXPECT_EQ(policy->ChooseVictim(0, [](int32_t) { return false; }), -1);
    const int32_t victim = policy->ChooseVictim(1, kAny);
    EXPECT_EQ(policy->ChooseVictim(1, kAny), victim);
    policy->OnEvict(victim);
    EXPECT_EQ(policy->ChooseVictim(1, kAny), 7 - victim);
    policy->OnEvict(7 - victim);
    EXPECT_EQ(policy->ChooseVictim(1, kAny), -1);
    // Evicted experts come back.
    policy->OnUse(1, 2, 1);
    policy->OnLoad(1, 2);
    EXPECT_EQ(policy->ChooseVictim(2, kAny), 1);
  }
}

TEST(ExpertPolicyTest, BeladyNeedsTheLeastLoads) {
  constexpr PolicyShape kShape = {3, 3};
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    const auto uses = RandomUses(kShape, 40, seed);
    const KnownUses forecast(uses);
    for (const size_t capacity : {1, 2, 4, 6}) {
      const auto policy = Make(ExpertPolicyKind::kBelady, kShape, &forecast);
      EXPECT_EQ(CountLoads(*policy, uses, capacity), LeastLoads(uses, capacity))
          << "seed " << seed << ", capacity " << capacity;
    }
  }
}

TEST(ExpertPolicyTest, FutureWithAPerfectForecastIsBelady) {
  constexpr PolicyShape kShape = {4, 8};
  const auto uses = RandomUses(kShape, 400, 7);
  const KnownUses forecast(uses);
  const auto future = Make(ExpertPolicyKind::kFuture, kShape, &forecast);
  const auto belady = Make(ExpertPolicyKind::kBelady, kShape, &forecast);
  // Only where a key is never used again do the two differ, and there it costs nothing but at the
  // trace's end.
  EXPECT_NEAR(static_cast<double>(CountLoads(*future, uses, 12)),
              static_cast<double>(CountLoads(*belady, uses, 12)), 8);
}

TEST(ExpertPolicyTest, FutureWithoutAnyForecastIsLfu) {
  constexpr PolicyShape kShape = {4, 8};
  const auto uses = RandomUses(kShape, 400, 9);
  const FixedForecast nothing;
  EXPECT_EQ(CountLoads(*Make(ExpertPolicyKind::kFuture, kShape, &nothing), uses, 12),
            CountLoads(*Make(ExpertPolicyKind::kLfu, kShape), uses, 12));
}

TEST(ExpertPolicyTest, FutureFollowsAForecastThatChanges) {
  FixedForecast forecast;
  forecast.next = {{0, 10}, {1, 20}, {2, 15}};
  const auto policy = Make(ExpertPolicyKind::kFuture, {1, 4}, &forecast);
  for (const int32_t key : {0, 1, 2}) policy->OnLoad(key, 0);
  EXPECT_EQ(policy->ChooseVictim(1, kAny), 1);
  forecast.next[1] = 5;
  ++forecast.changes;
  EXPECT_EQ(policy->ChooseVictim(1, kAny), 2);
  // A forecast use that passed without being asked for is no reason to keep an expert.
  forecast.next = {{0, 9}, {1, 30}, {2, 40}};
  ++forecast.changes;
  EXPECT_EQ(policy->ChooseVictim(8, kAny), 2);
  forecast.next.erase(0);
  EXPECT_EQ(policy->ChooseVictim(9, [](int32_t key) { return key != 2; }), 1);
}

TEST(ExpertPolicyTest, BeladyForgetsAForecastUseThatDidNotHappen) {
  FixedForecast forecast;
  forecast.next = {{0, 3}, {1, 9}};
  const auto policy = Make(ExpertPolicyKind::kBelady, {1, 4}, &forecast);
  policy->OnLoad(0, 0);
  policy->OnLoad(1, 0);
  EXPECT_EQ(policy->ChooseVictim(1, kAny), 1);
  forecast.next.erase(0);
  EXPECT_EQ(policy->ChooseVictim(4, kAny), 0);
  // Answers that lie in the past count as none.
  forecast.next = {{0, 3}, {1, 9}};
  EXPECT_EQ(policy->ChooseVictim(20, kAny), 1);
}

// The reason why lru is not the default: layers are swept cyclically.
TEST(ExpertPolicyTest, LruHasNoHitsOnACyclicSweepUntilAllFitsAndLfuComesNearTheOptimum) {
  constexpr PolicyShape kShape = {8, 4};
  constexpr int32_t kSteps = 20;
  const auto uses = CyclicSweep(kShape, kSteps);
  const KnownUses forecast(uses);
  const int64_t all = int64_t{kShape.num_layers} * kShape.num_experts;
  const int64_t total = all * kSteps;
  for (const size_t capacity : {8, 16, 24, 28}) {
    SCOPED_TRACE(capacity);
    const auto loads = [&](ExpertPolicyKind kind) {
      return CountLoads(*Make(kind, kShape, &forecast), uses, capacity);
    };
    EXPECT_EQ(loads(ExpertPolicyKind::kLru), total);
    EXPECT_EQ(loads(ExpertPolicyKind::kFifo), total);
    const int64_t optimum = loads(ExpertPolicyKind::kBelady);
    EXPECT_LT(optimum, total);
    EXPECT_LE(loads(ExpertPolicyKind::kLfu), optimum + kShape.num_experts);
  }
  EXPECT_EQ(CountLoads(*Make(ExpertPolicyKind::kLru, kShape), uses, all), all);
  EXPECT_EQ(CountLoads(*Make(ExpertPolicyKind::kLfu, kShape), uses, all), all);
}

}  // namespace
}  // namespace moesaic
