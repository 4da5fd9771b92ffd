#include "memory/expert_cache.h"

#include <map>
#include <random>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

using State = ExpertCache::State;

constexpr StripeKeys kKeys = {.num_layers = 2, .num_experts = 4, .stripes_per_expert = 3};

ExpertCache MakeCache(int32_t slots,
                      ExpertPolicyKind kind = ExpertPolicyKind::kLru,
                      const StripeKeys& keys = kKeys) {
  return ExpertCache(keys, StripeArena::WithoutMemory(slots, 4096),
                     *MakeExpertPolicy(kind, {keys.num_layers, keys.num_experts}, nullptr));
}

// One use of an expert: its absent stripes are loaded, one after the other.
void UseAndLoad(ExpertCache& cache, int32_t expert, int64_t tick) {
  cache.Advance(tick);
  cache.Use(expert, 1);
  const int32_t first = cache.keys().FirstStripe(expert);
  for (int32_t s = first; s < first + cache.keys().stripes_per_expert; ++s) {
    if (cache.state(s) == State::kAbsent) {
      ASSERT_TRUE(cache.BeginDemand(s));
      cache.FinishLoad(s);
    }
    cache.Unpin(s, cache.Pin(s));
  }
}

std::vector<int32_t> Resident(const ExpertCache& cache) {
  std::vector<int32_t> resident;
  for (int32_t s = 0; s < cache.keys().stripes(); ++s) {
    if (cache.state(s) == State::kResident) resident.push_back(s);
  }
  return resident;
}

TEST(StripeKeysTest, KeysAndIdsAreInverse) {
  ASSERT_TRUE(kKeys.valid());
  for (int32_t s = 0; s < kKeys.stripes(); ++s) {
    EXPECT_EQ(kKeys.Stripe(kKeys.Id(s)), s);
    EXPECT_EQ(kKeys.ExpertOf(s), kKeys.Expert(kKeys.Id(s).expert));
  }
  EXPECT_FALSE((StripeKeys{1 << 11, 1 << 11, 1 << 11}.valid()));
  EXPECT_FALSE((StripeKeys{0, 1, 1}.valid()));
}

TEST(ExpertCacheTest, AStripeGoesThroughItsStates) {
  ExpertCache cache = MakeCache(2);
  EXPECT_EQ(cache.state(4), State::kAbsent);
  ASSERT_TRUE(cache.BeginDemand(4));
  EXPECT_EQ(cache.state(4), State::kLoading);
  EXPECT_EQ(cache.held_stripes(1), 1);
  cache.FinishLoad(4);
  EXPECT_EQ(cache.state(4), State::kResident);
  const SlotRef slot = cache.Pin(4);
  EXPECT_EQ(cache.slot(4).slot, slot.slot);
  EXPECT_DEATH(cache.Release(4), "check failed");
  cache.Unpin(4, slot);
  cache.Release(4);
  EXPECT_EQ(cache.state(4), State::kAbsent);
  EXPECT_EQ(cache.arena().used_slots(), 0);

  ASSERT_TRUE(cache.BeginDemand(4));
  cache.AbandonLoad(4);  // the copy failed
  EXPECT_EQ(cache.state(4), State::kAbsent);
  EXPECT_EQ(cache.arena().used_slots(), 0);
  EXPECT_EQ(cache.held_stripes(1), 0);
}

TEST(ExpertCacheTest, AStaleReferenceIsCaught) {
  ExpertCache cache = MakeCache(1);
  ASSERT_TRUE(cache.BeginDemand(0));
  cache.FinishLoad(0);
  const SlotRef stale = cache.Pin(0);
  cache.Unpin(0, stale);
  ASSERT_TRUE(cache.BeginDemand(5));  // takes the slot
  EXPECT_EQ(cache.state(0), State::kAbsent);
  cache.FinishLoad(5);
  const SlotRef current = cache.Pin(5);
  EXPECT_EQ(current.slot, stale.slot);
  EXPECT_DEATH(cache.Unpin(5, stale), "check failed");
  EXPECT_DEATH(cache.Unpin(0, stale), "check failed");
}

TEST(ExpertCacheTest, AVictimLosesItsHighestStripesFirst) {
  ExpertCache cache = MakeCache(4);
  UseAndLoad(cache, 0, 0);
  UseAndLoad(cache, 1, 0);  // one free slot, then two stripes of the older expert
  EXPECT_THAT(Resident(cache), testing::ElementsAre(0, 3, 4, 5));
  EXPECT_EQ(cache.held_stripes(0), 1);
  EXPECT_EQ(cache.counters().evicted_stripes, 2);
}

TEST(ExpertCacheTest, PinnedAndLoadingStripesKeepTheirSlots) {
  ExpertCache cache = MakeCache(3);
  for (const int32_t stripe : {0, 1, 2}) ASSERT_TRUE(cache.BeginDemand(stripe));
  cache.FinishLoad(0);
  cache.FinishLoad(1);
  const SlotRef first = cache.Pin(1);
  const SlotRef again = cache.Pin(1);
  ASSERT_TRUE(cache.BeginDemand(9));  // only stripe 0 can go
  EXPECT_EQ(cache.state(0), State::kAbsent);
  EXPECT_FALSE(cache.BeginDemand(10));
  cache.Unpin(1, first);
  EXPECT_FALSE(cache.BeginDemand(10)) << "pinned twice";
  cache.Unpin(1, again);
  EXPECT_TRUE(cache.BeginDemand(10));
  EXPECT_EQ(cache.arena().high_water_slots(), 3);
}

TEST(ExpertCacheTest, ThePolicyDecides) {
  // Experts 0, 1, 0, 2 of one layer, in room for two.
  const auto survivors = [](ExpertPolicyKind kind) {
    ExpertCache cache = MakeCache(6, kind);
    int64_t tick = 0;
    for (const int32_t expert : {0, 1, 0, 2}) UseAndLoad(cache, expert, tick += 2);
    std::set<int32_t> experts;
    for (const int32_t stripe : Resident(cache)) experts.insert(kKeys.ExpertOf(stripe));
    return experts;
  };
  EXPECT_THAT(survivors(ExpertPolicyKind::kLru), testing::ElementsAre(0, 2));
  EXPECT_THAT(survivors(ExpertPolicyKind::kFifo), testing::ElementsAre(1, 2));
}

TEST(ExpertCacheTest, APrefetchTakesNothingThatIsExpectedSooner) {
  ExpertCache cache = MakeCache(3);
  UseAndLoad(cache, 0, 10);
  cache.Expect(0, 12);
  const int32_t other = kKeys.FirstStripe(4);
  EXPECT_FALSE(cache.BeginPrefetch(other, 13));
  EXPECT_FALSE(cache.BeginPrefetch(other, 12));
  EXPECT_TRUE(cache.BeginPrefetch(other, 11));
  EXPECT_TRUE(cache.BeginDemand(other + 1)) << "a demand may";
  cache.Advance(13);
  EXPECT_TRUE(cache.BeginPrefetch(other + 2, 14)) << "the expectation is over";
  EXPECT_THAT(Resident(cache), testing::IsEmpty());
}

TEST(ExpertCacheTest, TheNearestExpectationCounts) {
  ExpertCache cache = MakeCache(3);
  EXPECT_EQ(cache.expected(2), -1);
  cache.Expect(2, 20);
  cache.Expect(2, 15);
  cache.Expect(2, 18);
  EXPECT_EQ(cache.expected(2), 15);
  cache.Advance(15);
  cache.Use(2, 1);
  EXPECT_EQ(cache.expected(2), -1);
  cache.Expect(2, 30);
  cache.Advance(16);
  cache.Use(2, 1);
  EXPECT_EQ(cache.expected(2), 30) << "a use before it does not end it";
  EXPECT_DEATH(cache.Advance(15), "check failed");
}

TEST(ExpertCacheTest, WasteIsWhatWasPrefetchedAndNotUsed) {
  ExpertCache cache = MakeCache(3);
  for (const int32_t stripe : {0, 1, 2}) {
    ASSERT_TRUE(cache.BeginPrefetch(stripe, 1));
    EXPECT_TRUE(cache.unused_prefetch(stripe));
  }
  cache.MarkUsed(1);  // demanded while it loads
  for (const int32_t stripe : {0, 1}) cache.FinishLoad(stripe);
  cache.AbandonLoad(2);
  cache.Unpin(0, cache.Pin(0));
  EXPECT_EQ(cache.counters().used_prefetches, 2);
  ASSERT_TRUE(cache.BeginPrefetch(2, 1));
  cache.FinishLoad(2);
  for (const int32_t stripe : {0, 1, 2}) cache.Release(stripe);
  EXPECT_EQ(cache.counters().wasted_stripes, 1);
}

// Random traffic against a plain model.
TEST(ExpertCacheTest, RandomTrafficKeepsItsInvariants) {
  for (const ExpertPolicyKind kind : {ExpertPolicyKind::kOnDemand, ExpertPolicyKind::kFifo,
                                      ExpertPolicyKind::kLru, ExpertPolicyKind::kLfu}) {
    constexpr StripeKeys kMany = {.num_layers = 3, .num_experts = 5, .stripes_per_expert = 4};
    constexpr int32_t kSlots = 9;
    ExpertCache cache = MakeCache(kSlots, kind, kMany);
    std::mt19937 random(11);
    std::multimap<int32_t, SlotRef> pins;
    std::set<int32_t> loading;
    int64_t tick = 0;
    for (int step = 0; step < 30000; ++step) {
      const int32_t stripe = static_cast<int32_t>(random() % kMany.stripes());
      const int32_t expert = kMany.ExpertOf(stripe);
      switch (random() % 8) {
        case 0:
          cache.Advance(++tick);
          cache.Use(expert, 1 + static_cast<int32_t>(random() % 5));
          break;
        case 1:
          cache.Expect(expert, tick + static_cast<int64_t>(random() % 6));
          break;
        case 2:
        case 3:
        case 4:
          if (cache.state(stripe) == State::kAbsent) {
            const bool placed = random() % 2 == 0 ? cache.BeginDemand(stripe)
                                                  : cache.BeginPrefetch(stripe, tick + 3);
            if (placed) loading.insert(stripe);
          }
          break;
        case 5:
          if (!loading.empty()) {
            const int32_t done = *loading.begin();
            random() % 4 == 0 ? cache.AbandonLoad(done) : cache.FinishLoad(done);
            loading.erase(done);
          }
          break;
        case 6:
          if (cache.state(stripe) == State::kResident) pins.emplace(stripe, cache.Pin(stripe));
          break;
        default:
          if (!pins.empty()) {
            cache.Unpin(pins.begin()->first, pins.begin()->second);
            pins.erase(pins.begin());
          }
      }
      std::set<int32_t> slots;
      for (int32_t s = 0; s < kMany.stripes(); ++s) {
        if (cache.state(s) == State::kAbsent) continue;
        ASSERT_TRUE(cache.arena().IsCurrent(cache.slot(s)));
        ASSERT_TRUE(slots.insert(cache.slot(s).slot).second) << "two stripes in one slot";
      }
      ASSERT_EQ(static_cast<int32_t>(slots.size()), cache.arena().used_slots());
      ASSERT_LE(cache.arena().high_water_slots(), kSlots);
      for (const auto& [pinned, slot] : pins) {
        ASSERT_EQ(cache.state(pinned), State::kResident);
        ASSERT_EQ(cache.slot(pinned).generation, slot.generation);
      }
    }
  }
}

}  // namespace
}  // namespace moesaic
