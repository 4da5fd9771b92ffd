#include "memory/stripe_arena.h"

#include <cstring>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "memory/cpu_device.h"

namespace moesaic {
namespace {

TEST(StripeArenaTest, SlotsAreDistinctAndCounted) {
  CpuDevice device(nullptr);
  absl::StatusOr<StripeArena> arena = StripeArena::Create(device, 3, 4096);
  ASSERT_TRUE(arena.ok());
  std::set<std::byte*> addresses;
  SlotRef last;
  for (int i = 0; i < 3; ++i) {
    last = arena->Allocate();
    ASSERT_TRUE(last.valid());
    std::byte* data = arena->Data(last);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 4096, 0u);
    std::memset(data, i, 4096);
    addresses.insert(data);
  }
  EXPECT_EQ(addresses.size(), 3u);
  EXPECT_FALSE(arena->Allocate().valid());
  arena->Free(last);
  EXPECT_EQ(arena->used_slots(), 2);
  EXPECT_EQ(arena->high_water_slots(), 3);
  // The slot that was used last is warm.
  EXPECT_EQ(arena->Allocate().slot, last.slot);
}

TEST(StripeArenaTest, AStaleReferenceIsCaught) {
  StripeArena arena = StripeArena::WithoutMemory(2, 4096);
  const SlotRef first = arena.Allocate();
  EXPECT_EQ(arena.Data(first), nullptr);
  EXPECT_TRUE(arena.IsCurrent(first));
  arena.Free(first);
  EXPECT_FALSE(arena.IsCurrent(first));
  const SlotRef second = arena.Allocate();
  EXPECT_EQ(second.slot, first.slot);
  EXPECT_FALSE(arena.IsCurrent(first));
  EXPECT_TRUE(arena.IsCurrent(second));
  EXPECT_FALSE(arena.IsCurrent({}));
  EXPECT_FALSE(arena.IsCurrent({.slot = 1, .generation = 0}));
  EXPECT_FALSE(arena.IsCurrent({.slot = 2, .generation = 1}));
  EXPECT_DEATH(arena.Data(first), "check failed: IsCurrent");
  EXPECT_DEATH(arena.Free(first), "check failed: IsCurrent");
}

TEST(StripeArenaTest, ImpossibleSizesAreRefused) {
  CpuDevice device(nullptr);
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max() / 2;
  EXPECT_EQ(StripeArena::Create(device, 0, 4096).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StripeArena::Create(device, 3, 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StripeArena::Create(device, 3, kHuge).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StripeArena::Create(device, 1, kHuge).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace moesaic
