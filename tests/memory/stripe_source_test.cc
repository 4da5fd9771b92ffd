#include "memory/stripe_source.h"

#include <cstring>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "base/aligned_buffer.h"

namespace moesaic {
namespace {

constexpr ExpertStore::Shape kShape = {
    .num_layers = 2, .num_experts = 3, .stripes_per_expert = 2, .slot_bytes = 4096};

ExpertStore FilledStore() {
  ExpertStore store = *ExpertStore::Create(kShape);
  for (int32_t layer = 0; layer < 2; ++layer) {
    for (int32_t i = 0; i < 6; ++i) {
      std::memset(store.MutableStripe({{layer, i / 2}, i % 2}), 1 + layer * 6 + i, 4096);
    }
  }
  return store;
}

TEST(RamStripeSourceTest, EveryStripeIsInHostMemoryAndCanAlsoBeRead) {
  const ExpertStore store = FilledStore();
  RamStripeSource source(store);
  EXPECT_EQ(source.shape().num_experts, 3);
  const StripeId id = {{1, 2}, 1};
  ASSERT_NE(source.HostStripe(id), nullptr);
  EXPECT_EQ(static_cast<int>(*source.HostStripe(id)), 12);

  const AlignedBuffer slot = *AlignedBuffer::Allocate(4096, "slot");
  ASSERT_TRUE(source.StartRead(id, slot.data(), 77).ok());
  std::vector<StripeSource::Completion> done;
  source.WaitCompletions(absl::InfiniteFuture(), done);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].token, 77u);
  EXPECT_TRUE(done[0].status.ok());
  EXPECT_EQ(std::memcmp(slot.data(), source.HostStripe(id), 4096), 0);

  source.WaitCompletions(absl::InfinitePast(), done);  // the deadline has passed
  EXPECT_EQ(done.size(), 1u);
}

TEST(RamStripeSourceTest, WakeEndsAWaitEvenWhenItComesFirst) {
  const ExpertStore store = FilledStore();
  RamStripeSource source(store);
  std::vector<StripeSource::Completion> done;
  source.Wake();
  source.WaitCompletions(absl::InfiniteFuture(), done);
  std::thread waker([&] { source.Wake(); });
  source.WaitCompletions(absl::InfiniteFuture(), done);
  waker.join();
  EXPECT_TRUE(done.empty());
}

}  // namespace
}  // namespace moesaic
