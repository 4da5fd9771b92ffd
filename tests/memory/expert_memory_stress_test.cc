// Random layers, plans, budgets and faults: every stripe that a layer runs is the right one, the
// budget holds, and nothing waits for ever.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <random>
#include <thread>
#include <tuple>

#include <gtest/gtest.h>

#include "memory/cpu_device.h"
#include "memory/expert_memory.h"
#include "tests/memory/layer_runner.h"
#include "tests/memory/test_stripe_source.h"

namespace moesaic {
namespace {

constexpr ExpertStore::Shape kShape = {
    .num_layers = 4, .num_experts = 7, .stripes_per_expert = 5, .slot_bytes = 4096};
constexpr int32_t kStripes = 4 * 7 * 5;

class ExpertMemoryStressTest : public testing::TestWithParam<std::tuple<ExpertPolicyKind, bool>> {};

TEST_P(ExpertMemoryStressTest, EveryBudgetServesEveryLayer) {
  const auto [kind, remote] = GetParam();
  for (const int32_t slots : {2, 3, 4, 7, 11, 35, 80, kStripes}) {
    CpuDevice cpu(nullptr);
    RemoteDevice distant;
    TestStripeSource source(kShape);
    source.in_host_memory = [](StripeId id) { return (id.expert.index + id.stripe) % 4 == 0; };
    // Only the copy thread draws from these.
    std::mt19937 fault_random(static_cast<unsigned>(slots));
    std::atomic<bool> faults{false};
    source.read_fault = [&](StripeId) {
      return faults && fault_random() % 16 == 0 ? absl::UnavailableError("injected")
                                                : absl::OkStatus();
    };
    source.start_fault = [&](StripeId) {
      return faults && fault_random() % 40 == 0 ? absl::UnavailableError("injected at the start")
                                                : absl::OkStatus();
    };
    auto created = ExpertMemory::Create(
        remote ? static_cast<Device&>(distant) : cpu, source,
        *MakeExpertPolicy(kind, {kShape.num_layers, kShape.num_experts}, nullptr),
        {.budget_bytes = slots * kShape.slot_bytes,
         .copies = {.max_bytes_in_flight = 6 * kShape.slot_bytes,
                    .max_prefetch_bytes_in_flight = 3 * kShape.slot_bytes}});
    ASSERT_TRUE(created.ok()) << created.status();
    ExpertMemory& memory = **created;
    LayerRunner runner(memory, source);

    // Somebody looks at the metrics and cancels prefetches all the while.
    std::atomic<bool> stop{false};
    std::thread onlooker([&] {
      int looks = 0;
      while (!stop) {
        const ExpertMemoryMetrics metrics = memory.metrics();
        EXPECT_LE(metrics.used_bytes, metrics.budget_bytes);
        if (++looks % 8 == 0) memory.CancelPrefetches();
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    });

    std::mt19937 random(static_cast<unsigned>(slots) * 7 + 1);
    std::vector<int32_t> experts(kShape.num_experts);
    std::iota(experts.begin(), experts.end(), 0);
    int failed_layers = 0;
    PrefetchPlan plan;
    for (int64_t tick = 0; tick < 240; ++tick) {
      faults = tick % 80 >= 40;
      const auto layer = static_cast<int32_t>(tick % kShape.num_layers);
      plan.entries.clear();
      for (size_t i = random() % 4; i > 0; --i) {
        const int64_t when = tick + static_cast<int64_t>(random() % 6);
        const auto first = static_cast<int32_t>(random() % 5);
        plan.entries.push_back(
            {.expert = {static_cast<int32_t>(when % kShape.num_layers),
                        static_cast<int32_t>(random() % kShape.num_experts)},
             .first_stripe = first,
             .num_stripes = random() % 2 == 0 ? PrefetchPlan::kAllStripes : 5 - first,
             .prefetch_class =
                 random() % 2 == 0 ? PrefetchClass::kNextLayer : PrefetchClass::kLater,
             .tick = when});
      }
      memory.Prefetch(plan);

      std::shuffle(experts.begin(), experts.end(), random);
      std::vector<ExpertMemory::ActiveExpert> active;
      for (size_t i = 0; i < random() % (kShape.num_experts + 1); ++i) {
        active.push_back({experts[i], 1 + static_cast<int32_t>(random() % 3)});
      }
      if (random() % 10 == 0) {  // the layer ends early
        memory.BeginLayer(layer, tick, active);
        const auto ready = memory.WaitReady();
        if (ready.ok() && !ready->empty() && random() % 2 == 0) memory.Consume((*ready)[0]);
        memory.EndLayer();
        continue;
      }
      const LayerRunner::Result result = runner.Run(layer, tick, active);
      ASSERT_EQ(result.status.ok(), result.failed.empty());
      if (!result.status.ok()) ++failed_layers;
    }
    stop = true;
    onlooker.join();
    memory.WaitIdle();
    const ExpertMemoryMetrics metrics = memory.metrics();
    EXPECT_LE(metrics.high_water_bytes, slots * kShape.slot_bytes);
    EXPECT_LE(metrics.copies.max_bytes_in_flight, 6 * kShape.slot_bytes);
    EXPECT_EQ(metrics.copies.classes[0].queued, 0);
    if (slots < 35) {
      EXPECT_GT(failed_layers, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Policies,
                         ExpertMemoryStressTest,
                         testing::Combine(testing::Values(ExpertPolicyKind::kOnDemand,
                                                          ExpertPolicyKind::kFifo,
                                                          ExpertPolicyKind::kLru,
                                                          ExpertPolicyKind::kLfu),
                                          testing::Bool()));

}  // namespace
}  // namespace moesaic
