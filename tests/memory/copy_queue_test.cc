#include "memory/copy_queue.h"

#include <algorithm>
#include <array>
#include <list>
#include <random>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

TEST(CopyQueueTest, EachClassIsFirstComeFirstServed) {
  CopyQueue queue(10);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.Front(CopyClass::kDemand), -1);
  for (const int32_t stripe : {5, 3, 8}) queue.Insert(stripe, CopyClass::kLater);
  queue.Insert(1, CopyClass::kDemand);
  EXPECT_EQ(queue.size(CopyClass::kLater), 3);
  EXPECT_EQ(queue.ClassOf(3), CopyClass::kLater);
  for (const int32_t stripe : {5, 3, 8}) {
    EXPECT_EQ(queue.Front(CopyClass::kLater), stripe);
    queue.Remove(stripe);
    EXPECT_FALSE(queue.Contains(stripe));
  }
  EXPECT_EQ(queue.Front(CopyClass::kDemand), 1);
  EXPECT_FALSE(queue.empty());
  EXPECT_DEATH(queue.Insert(1, CopyClass::kLater), "check failed");
  EXPECT_DEATH(queue.Remove(5), "check failed");
}

TEST(CopyQueueTest, RandomTrafficMatchesLists) {
  CopyQueue queue(40);
  std::array<std::list<int32_t>, kNumCopyClasses> lists;
  std::mt19937 random(3);
  for (int step = 0; step < 20000; ++step) {
    const int32_t stripe = static_cast<int32_t>(random() % 40);
    if (queue.Contains(stripe)) {
      lists[static_cast<int>(queue.ClassOf(stripe))].remove(stripe);
      queue.Remove(stripe);
    } else {
      const size_t chosen = random() % kNumCopyClasses;
      std::list<int32_t>& list = lists[chosen];
      auto position = list.end();
      if (random() % 2 == 0 && !list.empty()) {
        position = std::next(list.begin(), static_cast<ptrdiff_t>(random() % list.size()));
      }
      queue.Insert(stripe, static_cast<CopyClass>(chosen), position == list.end() ? -1 : *position);
      list.insert(position, stripe);
    }
    for (int i = 0; i < kNumCopyClasses; ++i) {
      const auto copy_class = static_cast<CopyClass>(i);
      ASSERT_EQ(queue.size(copy_class), static_cast<int32_t>(lists[i].size()));
      ASSERT_EQ(queue.Front(copy_class), lists[i].empty() ? -1 : lists[i].front());
    }
  }
}

}  // namespace
}  // namespace moesaic
