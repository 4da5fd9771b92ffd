// No allocation after start-up: layers, copies, evictions and prefetches allocate nothing.

#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "memory/cpu_device.h"
#include "memory/expert_memory.h"
#include "memory/stripe_source.h"

namespace {

std::atomic<int64_t> allocations{0};

void* CountedAllocation(std::size_t bytes, std::size_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) {
  return CountedAllocation(bytes, alignof(std::max_align_t));
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return CountedAllocation(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace moesaic {
namespace {

constexpr ExpertStore::Shape kShape = {
    .num_layers = 3, .num_experts = 8, .stripes_per_expert = 4, .slot_bytes = 4096};

class ExpertMemoryAllocationTest : public testing::TestWithParam<ExpertPolicyKind> {};

TEST_P(ExpertMemoryAllocationTest, LayersAllocateNothing) {
  CpuDevice device(nullptr);
  const absl::StatusOr<ExpertStore> store = ExpertStore::Create(kShape);
  ASSERT_TRUE(store.ok());
  for (const int32_t slots : {2, 24, 96}) {
    RamStripeSource source(*store);
    const auto memory = ExpertMemory::Create(
        device, source,
        *MakeExpertPolicy(GetParam(), {kShape.num_layers, kShape.num_experts}, nullptr),
        {.budget_bytes = slots * kShape.slot_bytes});
    ASSERT_TRUE(memory.ok());
    PrefetchPlan plan;
    plan.entries.resize(2);
    const auto run = [&](int64_t tick) {
      const auto layer = static_cast<int32_t>(tick % 3);
      const auto expert = static_cast<int32_t>(tick % 7);
      const ExpertMemory::ActiveExpert active[] = {{expert, 1}, {expert + 1, 2}};
      plan.entries[0] = {.expert = {(layer + 1) % 3, expert}, .tick = tick + 1};
      plan.entries[1] = {.expert = {(layer + 2) % 3, expert},
                         .prefetch_class = PrefetchClass::kLater,
                         .tick = tick + 2};
      (*memory)->Prefetch(plan);
      (*memory)->BeginLayer(layer, tick, active);
      for (;;) {
        const auto ready = (*memory)->WaitReady();
        ASSERT_TRUE(ready.ok());
        if (ready->empty()) break;
        (*memory)->Consume(*ready);
      }
      (*memory)->EndLayer();
    };
    run(0);
    const int64_t before = allocations.load();
    for (int64_t tick = 1; tick < 300; ++tick) run(tick);
    EXPECT_EQ(allocations.load(), before) << slots << " slots";
    EXPECT_GT((*memory)->metrics().misses, 0);
  }
  const int64_t before = allocations.load();
  const std::vector<int> counted(100);
  EXPECT_EQ(allocations.load(), before + 1) << "the counter counts";
}

INSTANTIATE_TEST_SUITE_P(Policies,
                         ExpertMemoryAllocationTest,
                         testing::Values(ExpertPolicyKind::kOnDemand,
                                         ExpertPolicyKind::kFifo,
                                         ExpertPolicyKind::kLru,
                                         ExpertPolicyKind::kLfu));

}  // namespace
}  // namespace moesaic
