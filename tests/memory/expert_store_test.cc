#include "memory/expert_store.h"

#include <cstring>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

constexpr ExpertStore::Shape kShape = {
    .num_layers = 3, .num_experts = 5, .stripes_per_expert = 2, .slot_bytes = 4096};

TEST(ExpertStoreTest, EveryStripeHasItsOwnSlot) {
  absl::StatusOr<ExpertStore> store = ExpertStore::Create(kShape);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(store->bytes(), 3 * 5 * 2 * 4096);
  int value = 0;
  for (int32_t layer = 0; layer < 3; ++layer) {
    for (int32_t expert = 0; expert < 5; ++expert) {
      for (int32_t stripe = 0; stripe < 2; ++stripe) {
        std::memset(store->MutableStripe({{layer, expert}, stripe}), ++value, kShape.slot_bytes);
      }
    }
  }
  value = 0;
  for (int32_t layer = 0; layer < 3; ++layer) {
    const std::span<const void* const> stripes = store->LayerStripes(layer);
    ASSERT_EQ(stripes.size(), 10u);
    for (int32_t i = 0; i < 10; ++i) {
      ++value;
      EXPECT_EQ(stripes[i], store->Stripe({{layer, i / 2}, i % 2}));
      const auto* bytes = static_cast<const uint8_t*>(stripes[i]);
      EXPECT_EQ(bytes[0], value);
      EXPECT_EQ(bytes[kShape.slot_bytes - 1], value);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes) % 4096, 0u);
    }
  }
}

TEST(ExpertStoreTest, PointersSurviveAMove) {
  absl::StatusOr<ExpertStore> store = ExpertStore::Create(kShape);
  ASSERT_TRUE(store.ok());
  const StripeId id = {{2, 4}, 1};
  std::memset(store->MutableStripe(id), 7, kShape.slot_bytes);
  const ExpertStore moved = *std::move(store);
  EXPECT_EQ(*static_cast<const uint8_t*>(moved.Stripe(id)), 7);
  EXPECT_EQ(moved.LayerStripes(2)[9], moved.Stripe(id));
}

TEST(ExpertStoreTest, AStoreWithoutExpertsIsEmpty) {
  const absl::StatusOr<ExpertStore> store = ExpertStore::Create({});
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(store->bytes(), 0);
}

TEST(ExpertStoreTest, SizesBeyondCountingAreRefused) {
  constexpr int32_t kMax = std::numeric_limits<int32_t>::max();
  const absl::StatusOr<int64_t> bytes = ExpertStore::TotalBytes(
      {.num_layers = kMax, .num_experts = kMax, .stripes_per_expert = kMax, .slot_bytes = 4096});
  EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bytes.status().message()), testing::HasSubstr("2147483647 experts"));
}

TEST(ExpertStoreTest, MoreThanTheMachineHasIsRefused) {
  const absl::StatusOr<ExpertStore> store = ExpertStore::Create(
      {.num_layers = 1000, .num_experts = 1000, .stripes_per_expert = 100, .slot_bytes = 3 << 20});
  EXPECT_EQ(store.status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace moesaic
