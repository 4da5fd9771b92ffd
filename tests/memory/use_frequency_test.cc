#include "memory/use_frequency.h"

#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

constexpr auto kAny = [](int32_t) { return true; };

TEST(UseFrequencyTest, NothingResidentHasNoCandidate) {
  UseFrequency frequency(2, 4);
  frequency.OnUse(1, 0);
  EXPECT_EQ(frequency.Furthest(0, kAny).key, -1);
}

TEST(UseFrequencyTest, AmongEqualsTheLayerThatHasJustRunGoesFirst) {
  UseFrequency frequency(3, 2);
  for (int32_t layer = 0; layer < 3; ++layer) {
    frequency.OnUse(layer * 2, layer);
    frequency.Add(layer * 2);
  }
  EXPECT_EQ(frequency.Furthest(3 * 7 + 0, kAny).key, 0);
  EXPECT_EQ(frequency.Furthest(3 * 7 + 1, kAny).key, 2);
  EXPECT_EQ(frequency.Furthest(3 * 7 + 2, kAny).key, 4);
  // Layer 1 runs next: its expert is needed first.
  EXPECT_EQ(frequency.Furthest(3 * 7 + 0, [](int32_t key) { return key != 0; }).key, 4);
}

TEST(UseFrequencyTest, ARarelyUsedExpertGoesBeforeAnOftenUsedOneWhateverItsLayer) {
  UseFrequency frequency(4, 2);
  for (int64_t step = 0; step < 10; ++step) {
    for (int32_t layer = 0; layer < 4; ++layer) frequency.OnUse(layer * 2, step * 4 + layer);
  }
  frequency.OnUse(3, 9 * 4 + 1);
  for (const int32_t key : {0, 2, 3, 4, 6}) frequency.Add(key);
  for (int32_t layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(frequency.Furthest(9 * 4 + layer, kAny).key, 3);
  }
}

TEST(UseFrequencyTest, ExpectedUseIsTheDistanceWhereEveryStepUsesIt) {
  UseFrequency frequency(4, 2);
  for (int64_t step = 0; step < 300; ++step) frequency.OnUse(2 * 2, step * 4 + 2);
  frequency.Add(2 * 2);
  EXPECT_NEAR(frequency.Furthest(299 * 4 + 2, kAny).ticks, 4, 1e-9);
  EXPECT_NEAR(frequency.Furthest(299 * 4 + 1, kAny).ticks, 1, 1e-9);
}

TEST(UseFrequencyTest, TheLastStepWeighsMoreThanAnyOther) {
  UseFrequency frequency(1, 2);
  for (int64_t step = 0; step < 100; ++step) frequency.OnUse(static_cast<int32_t>(step % 2), step);
  frequency.Add(0);
  frequency.Add(1);
  EXPECT_EQ(frequency.Furthest(99, kAny).key, 0);
  frequency.OnUse(0, 100);
  EXPECT_EQ(frequency.Furthest(100, kAny).key, 1);
}

TEST(UseFrequencyTest, OldUsesFade) {
  UseFrequency frequency(1, 3);
  int64_t step = 0;
  for (; step < 100; ++step) frequency.OnUse(0, step);
  for (; step < 100 + 6 * UseFrequency::kSlowHalfLifeSteps; ++step) {
    if (step % 4 == 0) frequency.OnUse(1, step);
    frequency.OnUse(2, step);
  }
  frequency.Add(0);
  frequency.Add(1);
  EXPECT_EQ(frequency.Furthest(step, kAny).key, 0);
}

TEST(UseFrequencyTest, StaysFiniteAndOrderedOverManySteps) {
  UseFrequency frequency(1, 3);
  for (int32_t key = 0; key < 3; ++key) frequency.Add(key);
  for (int64_t step = 0; step < 300'000; ++step) {
    frequency.OnUse(0, step);
    if (step % 3 == 0) frequency.OnUse(1, step);
    if (step % 20 == 0) frequency.OnUse(2, step);
  }
  EXPECT_EQ(frequency.Furthest(300'000, kAny).key, 2);
  EXPECT_NEAR(frequency.Furthest(300'000, [](int32_t key) { return key == 1; }).ticks, 3, 0.6);
  // A long pause fades everything; the next use counts again.
  frequency.OnUse(2, int64_t{1} << 40);
  EXPECT_NE(frequency.Furthest(int64_t{1} << 40, kAny).key, 2);
}

// Against the definition, computed the slow way.
TEST(UseFrequencyTest, FindsWhatAFullSearchFinds) {
  constexpr int32_t kLayers = 3;
  constexpr int32_t kExperts = 8;
  UseFrequency frequency(kLayers, kExperts);
  std::set<int32_t> resident;
  uint32_t random = 1;
  const auto draw = [&random](uint32_t bound) {
    random = random * 1664525u + 1013904223u;
    return static_cast<int32_t>((random >> 8) % bound);
  };
  for (int64_t tick = 0; tick < 3000; ++tick) {
    const auto layer = static_cast<int32_t>(tick % kLayers);
    const int32_t key = layer * kExperts + draw(kExperts) * draw(kExperts) / kExperts;
    frequency.OnUse(key, tick);
    if (resident.insert(key).second) frequency.Add(key);
    const auto evictable = [&](int32_t candidate) { return candidate % 5 != tick % 5; };
    const UseFrequency::Candidate found = frequency.Furthest(tick, evictable);
    double furthest = -1;
    for (const int32_t candidate : resident) {
      if (!evictable(candidate)) continue;
      const double ticks =
          frequency.Furthest(tick, [candidate](int32_t other) { return other == candidate; }).ticks;
      furthest = std::max(furthest, ticks);
    }
    ASSERT_EQ(found.ticks, furthest < 0 ? 0 : furthest) << "tick " << tick;
    if (found.key >= 0 && resident.size() > 12) {
      ASSERT_EQ(resident.erase(found.key), 1u);
      frequency.Remove(found.key);
    }
  }
}

}  // namespace
}  // namespace moesaic
