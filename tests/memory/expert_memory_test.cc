#include "memory/expert_memory.h"

#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/cpu_device.h"
#include "tests/memory/layer_runner.h"
#include "tests/memory/test_stripe_source.h"

namespace moesaic {
namespace {

constexpr ExpertStore::Shape kShape = {
    .num_layers = 3, .num_experts = 6, .stripes_per_expert = 3, .slot_bytes = 4096};

class ExpertMemoryTest : public testing::Test {
 protected:
  void Create(int32_t slots, ExpertPolicyKind kind = ExpertPolicyKind::kLru) {
    memory_.reset();
    auto memory = ExpertMemory::Create(
        device_, source_, *MakeExpertPolicy(kind, {kShape.num_layers, kShape.num_experts}, nullptr),
        {.budget_bytes = slots * kShape.slot_bytes,
         .copies = {.max_bytes_in_flight = 4 * kShape.slot_bytes,
                    .max_prefetch_bytes_in_flight = 2 * kShape.slot_bytes}});
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
    runner_ = std::make_unique<LayerRunner>(*memory_, source_);
  }
  void Run(int32_t layer, int64_t tick, std::vector<ExpertMemory::ActiveExpert> active) {
    const LayerRunner::Result result = runner_->Run(layer, tick, active);
    ASSERT_TRUE(result.status.ok()) << result.status;
  }

  CpuDevice device_{nullptr};
  TestStripeSource source_{kShape};
  std::unique_ptr<ExpertMemory> memory_;
  std::unique_ptr<LayerRunner> runner_;
};

TEST_F(ExpertMemoryTest, WhatIsMissingIsBroughtAndWhatIsThereIsUsed) {
  Create(18);
  Run(0, 0, {{1, 4}, {3, 1}});
  Run(0, 3, {{1, 1}, {2, 1}});
  const ExpertMemoryMetrics metrics = memory_->metrics();
  EXPECT_EQ(metrics.expert_hits, 1);
  EXPECT_EQ(metrics.expert_misses, 3);
  EXPECT_EQ(metrics.hits, 3);
  EXPECT_EQ(metrics.misses, 9);
  EXPECT_EQ(metrics.demanded_bytes, 9 * kShape.slot_bytes);
  EXPECT_EQ(metrics.prefetched_bytes, 0);
  EXPECT_EQ(metrics.used_bytes, 9 * kShape.slot_bytes);
  EXPECT_EQ(metrics.evictions, 0);
  EXPECT_GT(metrics.stall_seconds, 0);
  EXPECT_EQ(metrics.budget_bytes, 18 * kShape.slot_bytes);
}

TEST_F(ExpertMemoryTest, MostRowsAreDemandedFirstAndStripesAscend) {
  Create(18);
  source_.max_reads = 1;
  Run(1, 1, {{0, 1}, {2, 7}, {4, 7}});
  std::vector<StripeId> expected;
  for (const int32_t expert : {2, 4, 0}) {
    for (const int32_t stripe : {0, 1, 2}) expected.push_back({{1, expert}, stripe});
  }
  EXPECT_EQ(source_.WaitStarted(9), expected);
}

TEST_F(ExpertMemoryTest, ResidentExpertsAreReadyWhileOthersLoad) {
  Create(18);
  Run(0, 0, {{5, 1}});
  source_.Hold(true);
  const std::vector<ExpertMemory::ActiveExpert> active = {{1, 9}, {5, 1}};
  memory_->BeginLayer(0, 3, active);
  auto ready = memory_->WaitReady();
  ASSERT_TRUE(ready.ok());
  ASSERT_EQ(ready->size(), 1u);
  EXPECT_EQ((*ready)[0].index, 1);
  EXPECT_EQ((*ready)[0].num_stripes, 3);
  EXPECT_EQ(memory_->stripes_left(), 3);
  memory_->Consume(*ready);
  source_.Hold(false);
  int32_t stripes = 0;
  while (stripes < 3) {
    ready = memory_->WaitReady();
    ASSERT_TRUE(ready.ok());
    ASSERT_EQ((*ready)[0].first_stripe, stripes);
    stripes += (*ready)[0].num_stripes;
    memory_->Consume((*ready)[0]);
  }
  EXPECT_TRUE(memory_->WaitReady()->empty());
  memory_->EndLayer();
}

TEST_F(ExpertMemoryTest, TwoSlotsAreEnoughAndOneIsRefused) {
  auto refused = ExpertMemory::Create(
      device_, source_,
      *MakeExpertPolicy(ExpertPolicyKind::kLru, {kShape.num_layers, kShape.num_experts}, nullptr),
      {.budget_bytes = 2 * kShape.slot_bytes - 1});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), testing::HasSubstr("8192 bytes is the"));
  EXPECT_EQ(ExpertMemory::MinimumBudgetBytes(kShape.slot_bytes), 8192);

  for (const ExpertPolicyKind kind : {ExpertPolicyKind::kOnDemand, ExpertPolicyKind::kFifo,
                                      ExpertPolicyKind::kLru, ExpertPolicyKind::kLfu}) {
    Create(2, kind);
    for (int64_t tick = 0; tick < 30; ++tick) {
      Run(static_cast<int32_t>(tick % 3), tick, {{0, 1}, {1, 5}, {3, 2}, {5, 2}});
    }
    const ExpertMemoryMetrics metrics = memory_->metrics();
    EXPECT_EQ(metrics.high_water_bytes, 2 * kShape.slot_bytes);
    EXPECT_LE(metrics.copies.max_bytes_in_flight, 2 * kShape.slot_bytes);
  }
}

TEST_F(ExpertMemoryTest, AStripeThatCannotRunYetGivesItsSlotToTheOneBeforeIt) {
  Create(2);
  // The last stripes of two experts fill both slots; their first stripes are missing.
  memory_->Prefetch({{{.expert = {0, 1}, .first_stripe = 2, .num_stripes = 1, .tick = 0},
                      {.expert = {0, 2}, .first_stripe = 1, .num_stripes = 1, .tick = 0}}});
  memory_->WaitIdle();
  Run(0, 0, {{1, 1}, {2, 1}});
  const ExpertMemoryMetrics metrics = memory_->metrics();
  EXPECT_EQ(metrics.expert_partial_hits, 2);
  EXPECT_GE(metrics.surrenders, 1);
  EXPECT_EQ(metrics.high_water_bytes, 2 * kShape.slot_bytes);
}

TEST_F(ExpertMemoryTest, NothingMoreFitsUntilTakenStripesAreConsumed) {
  Create(2);
  const std::vector<ExpertMemory::ActiveExpert> active = {{4, 1}};
  memory_->BeginLayer(2, 2, active);
  std::vector<ExpertMemory::ReadyStripes> taken;
  while (memory_->stripes_left() > 1) {
    const auto ready = memory_->WaitReady();
    ASSERT_TRUE(ready.ok());
    taken.insert(taken.end(), ready->begin(), ready->end());
  }
  EXPECT_TRUE(memory_->WaitReady()->empty());
  EXPECT_EQ(memory_->stripes_left(), 1);
  for (const auto& run : taken) memory_->Consume(run);
  const auto last = memory_->WaitReady();
  ASSERT_TRUE(last.ok());
  EXPECT_EQ((*last)[0].first_stripe, 2);
  memory_->Consume(*last);
  EXPECT_DEATH(memory_->Consume(*last), "check failed");
  memory_->EndLayer();
}

TEST_F(ExpertMemoryTest, OnDemandKeepsNothing) {
  Create(18, ExpertPolicyKind::kOnDemand);
  for (int64_t tick = 0; tick < 3; ++tick) Run(0, tick, {{1, 1}, {2, 2}});
  const ExpertMemoryMetrics metrics = memory_->metrics();
  EXPECT_EQ(metrics.hits, 0);
  EXPECT_EQ(metrics.misses, 18);
  EXPECT_EQ(metrics.used_bytes, 0);
}

TEST_F(ExpertMemoryTest, ThePolicyDecidesWhatStays) {
  const auto hits = [&](ExpertPolicyKind kind) {
    Create(6, kind);
    int64_t tick = 0;
    for (const int32_t expert : {0, 1, 0, 2}) Run(0, tick++, {{expert, 1}});
    const int64_t before = memory_->metrics().expert_hits;
    Run(0, tick, {{0, 1}});
    return memory_->metrics().expert_hits - before;
  };
  EXPECT_EQ(hits(ExpertPolicyKind::kLru), 1);
  EXPECT_EQ(hits(ExpertPolicyKind::kFifo), 0);
}

TEST_F(ExpertMemoryTest, PrefetchedStripesAreHits) {
  Create(18);
  PrefetchPlan plan;
  plan.entries = {{.expert = {1, 2}, .tick = 1},
                  {.expert = {1, 3}, .num_stripes = 2, .tick = 1},
                  {.expert = {1, 4}, .prefetch_class = PrefetchClass::kLater, .tick = 4}};
  memory_->Prefetch(plan);
  memory_->Prefetch(plan);  // nothing is copied twice
  memory_->WaitIdle();
  EXPECT_EQ(source_.num_started(), 8u);
  Run(1, 1, {{2, 1}, {3, 1}});
  const ExpertMemoryMetrics metrics = memory_->metrics();
  EXPECT_EQ(metrics.expert_hits, 1);
  EXPECT_EQ(metrics.expert_partial_hits, 1);
  EXPECT_EQ(metrics.hits, 5);
  EXPECT_EQ(metrics.misses, 1);
  EXPECT_EQ(metrics.prefetched_bytes, 8 * kShape.slot_bytes);
  EXPECT_EQ(metrics.used_prefetched_bytes, 5 * kShape.slot_bytes);
  EXPECT_EQ(metrics.wasted_bytes, 0);
}

TEST_F(ExpertMemoryTest, TheGateCancelsWhatItDidNotChooseAndPromotesWhatItDid) {
  Create(18);
  source_.Hold(true);
  source_.max_reads = 1;
  PrefetchPlan plan;
  plan.entries = {{.expert = {1, 0}, .tick = 1},   // its first stripe is in flight
                  {.expert = {1, 1}, .tick = 1},   // chosen
                  {.expert = {1, 2}, .tick = 1},   // not chosen
                  {.expert = {1, 3}, .tick = 4}};  // not chosen, but meant for a later step
  memory_->Prefetch(plan);
  source_.WaitStarted(1);
  const std::vector<ExpertMemory::ActiveExpert> active = {{1, 1}};
  memory_->BeginLayer(1, 1, active);
  EXPECT_EQ(memory_->metrics().copies.classes[0].queued, 3);
  EXPECT_EQ(memory_->metrics().copies.classes[1].queued, 3);
  EXPECT_EQ(memory_->metrics().cancelled_prefetches, 5);
  source_.Hold(false);
  runner_->Finish(1, active);
  memory_->WaitIdle();
  EXPECT_EQ(memory_->metrics().prefetched_bytes, 4 * kShape.slot_bytes);
}

TEST_F(ExpertMemoryTest, APrefetchOnItsWayIsWaitedFor) {
  Create(18);
  source_.Hold(true);
  memory_->Prefetch({{{.expert = {1, 0}, .num_stripes = 2, .tick = 1}}});
  source_.WaitStarted(2);
  const std::vector<ExpertMemory::ActiveExpert> active = {{0, 1}};
  memory_->BeginLayer(1, 1, active);
  EXPECT_EQ(memory_->metrics().late, 2);
  EXPECT_EQ(memory_->metrics().misses, 1);
  source_.Hold(false);
  runner_->Finish(1, active);
  EXPECT_EQ(memory_->metrics().demanded_bytes, 3 * kShape.slot_bytes);
  EXPECT_EQ(memory_->metrics().used_prefetched_bytes, 2 * kShape.slot_bytes);
}

TEST_F(ExpertMemoryTest, APrefetchEvictsNothingThatTheRunningLayerNeeds) {
  Create(6);
  Run(0, 0, {{0, 1}, {1, 1}});
  const std::vector<ExpertMemory::ActiveExpert> active = {{0, 1}, {1, 1}};
  memory_->BeginLayer(0, 3, active);
  memory_->Prefetch({{{.expert = {1, 0}, .tick = 4}}});
  memory_->WaitIdle();
  EXPECT_EQ(memory_->metrics().copies.classes[1].queued, 3) << "it waits for room";
  auto ready = memory_->WaitReady();
  ASSERT_TRUE(ready.ok());
  ASSERT_EQ(ready->size(), 2u);
  memory_->Consume((*ready)[0]);
  memory_->WaitIdle();
  EXPECT_EQ(memory_->metrics().copies.classes[1].queued, 0) << "and takes what was consumed";
  memory_->Consume((*ready)[1]);
  memory_->EndLayer();
  Run(1, 4, {{0, 1}});
  EXPECT_EQ(memory_->metrics().hits, 6 + 3);
}

TEST_F(ExpertMemoryTest, APrefetchThatIsTooLateIsDropped) {
  Create(6);
  Run(0, 0, {{0, 1}, {1, 1}});
  const std::vector<ExpertMemory::ActiveExpert> active = {{0, 1}, {1, 1}};
  memory_->BeginLayer(0, 3, active);
  memory_->Prefetch({{{.expert = {1, 0}, .tick = 4}, {.expert = {1, 1}, .tick = 2}}});
  memory_->WaitIdle();
  runner_->Finish(0, active, /*end=*/false);
  memory_->EndLayer();
  memory_->WaitIdle();
  memory_->Prefetch({{{.expert = {1, 2}, .tick = 4}}});
  Run(2, 5, {{4, 1}, {5, 1}});
  memory_->Prefetch({{{.expert = {2, 0}, .tick = 8}}});
  memory_->CancelPrefetches();
  memory_->WaitIdle();
  EXPECT_EQ(memory_->metrics().copies.classes[1].queued, 0);
}

TEST_F(ExpertMemoryTest, AFailedCopyFailsItsExpertAndTheOthersGoOn) {
  for (const bool at_start : {true, false}) {
    Create(4);
    auto& fault = at_start ? source_.start_fault : source_.read_fault;
    fault = [](StripeId id) {
      return id == StripeId{{0, 3}, 1} ? absl::DataLossError("damaged") : absl::OkStatus();
    };
    const LayerRunner::Result result = runner_->Run(0, 0, {{{1, 1}, {3, 2}, {4, 1}}});
    EXPECT_EQ(result.status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(result.failed, testing::ElementsAre(1));
    EXPECT_THAT(result.complete, testing::ElementsAre(0, 2));
    EXPECT_EQ(memory_->metrics().failed_copies, 1);
    memory_.reset();
    fault = nullptr;
  }
}

TEST_F(ExpertMemoryTest, AfterAnErrorTheNextLayerWorks) {
  Create(4);
  source_.read_fault = [](StripeId id) {
    return id.expert.layer == 0 ? absl::UnavailableError("disk") : absl::OkStatus();
  };
  const std::vector<ExpertMemory::ActiveExpert> active = {{1, 1}, {3, 2}, {4, 1}};
  for (int64_t tick = 0; tick < 20; tick += 2) {
    memory_->BeginLayer(0, tick, active);
    const auto ready = memory_->WaitReady();
    EXPECT_EQ(ready.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_FALSE(memory_->failed().empty());
    memory_->EndLayer();
    Run(1, tick + 1, {{0, 1}, {2, 1}});
  }
  memory_->WaitIdle();
  EXPECT_EQ(memory_->metrics().copies.classes[0].queued, 0);
}

TEST_F(ExpertMemoryTest, AFailedPrefetchHarmsNothing) {
  Create(6);
  int failures = 2;
  source_.read_fault = [&](StripeId) {
    return failures-- > 0 ? absl::UnavailableError("disk") : absl::OkStatus();
  };
  memory_->Prefetch({{{.expert = {0, 0}, .tick = 0}}});
  memory_->WaitIdle();
  EXPECT_EQ(memory_->metrics().failed_copies, 2);
  EXPECT_EQ(memory_->metrics().used_bytes, kShape.slot_bytes);
  Run(0, 0, {{0, 1}});
}

TEST_F(ExpertMemoryTest, ALayerWithoutExpertsIsEmpty) {
  Create(2);
  memory_->BeginLayer(0, 0, {});
  EXPECT_TRUE(memory_->WaitReady()->empty());
  memory_->EndLayer();
}

TEST_F(ExpertMemoryTest, EndingInTheMiddleOfALayerOrOfALoadIsFine) {
  Create(4);
  const std::vector<ExpertMemory::ActiveExpert> active = {{0, 1}, {1, 1}, {2, 1}};
  memory_->BeginLayer(0, 0, active);
  ASSERT_TRUE(memory_->WaitReady().ok());
  memory_->EndLayer();
  Run(1, 1, {{5, 1}});
  source_.Hold(true);
  memory_->BeginLayer(0, 3, active);
  source_.Hold(false);
  memory_.reset();
}

}  // namespace
}  // namespace moesaic
