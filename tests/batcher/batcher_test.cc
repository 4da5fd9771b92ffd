#include "batcher/batcher.h"

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/checked_math.h"
#include "core/batch.h"

namespace moesaic {

bool operator==(const ScheduledRows& a, const ScheduledRows& b) {
  return a.index == b.index && a.num_rows == b.num_rows;
}

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

SequenceView Waiting(int32_t num_tokens) {
  return {.num_tokens = num_tokens, .logits_from = num_tokens - 1};
}

SequenceView Running(int32_t num_tokens, int32_t computed_tokens) {
  return {.num_tokens = num_tokens,
          .computed_tokens = computed_tokens,
          .logits_from = num_tokens - 1,
          .blocks_held = CeilDiv(computed_tokens, kKvBlockTokens)};
}

StepBudget Budget() {
  return {.max_rows = 64, .max_logits_rows = 64, .max_sequences = 8, .free_blocks = 100};
}

StepPlan Plan(const StepBudget& budget,
              const std::vector<SequenceView>& running,
              const std::vector<SequenceView>& waiting) {
  StepPlan plan;
  size_t next = 0;
  PlanStep(
      budget, running,
      [&]() -> const SequenceView* { return next < waiting.size() ? &waiting[next++] : nullptr; },
      plan);
  return plan;
}

ScheduledRows Rows(int32_t index, int32_t num_rows) {
  return {.index = index, .num_rows = num_rows};
}

TEST(BatcherTest, DecodesFirstThenPrefillsThenAdmits) {
  const StepPlan plan = Plan(Budget(), {Running(100, 40), Running(21, 20), Running(50, 10)},
                             {Waiting(5), Waiting(5)});
  EXPECT_EQ(plan.preempt, -1);
  // One row for the decoding sequence, 60 for the first prefill, the last 3 for the second.
  EXPECT_THAT(plan.running, ElementsAre(Rows(1, 1), Rows(0, 60), Rows(2, 3)));
  EXPECT_THAT(plan.admitted, IsEmpty());
}

TEST(BatcherTest, AdmitsInOrderUntilTheRowsAreUsedUp) {
  const StepPlan plan =
      Plan(Budget(), {Running(21, 20)}, {Waiting(30), Waiting(30), Waiting(30), Waiting(2)});
  EXPECT_THAT(plan.running, ElementsAre(Rows(0, 1)));
  EXPECT_THAT(plan.admitted, ElementsAre(Rows(0, 30), Rows(1, 30), Rows(2, 3)));
}

TEST(BatcherTest, SequenceBudgetCountsAllOfN) {
  StepBudget budget = Budget();
  budget.max_sequences = 4;
  std::vector<SequenceView> waiting = {Waiting(3), Waiting(3), Waiting(3)};
  waiting[0].slots = 3;
  EXPECT_THAT(Plan(budget, {Running(21, 20)}, waiting).admitted, ElementsAre(Rows(0, 3)));
  // First come, first served: a small one does not pass a big one that has to wait.
  waiting[0].slots = 4;
  EXPECT_THAT(Plan(budget, {Running(21, 20)}, waiting).admitted, IsEmpty());
}

TEST(BatcherTest, PreemptsTheLatestWhenADecodeLacksABlock) {
  StepBudget budget = Budget();
  budget.free_blocks = 1;
  // Both need a new block for position 32.
  const StepPlan plan =
      Plan(budget, {Running(33, 32), Running(33, 32), Running(40, 16)}, {Waiting(1)});
  EXPECT_EQ(plan.preempt, 2);
  EXPECT_THAT(plan.running, IsEmpty());
  EXPECT_THAT(plan.admitted, IsEmpty());
}

TEST(BatcherTest, NothingIsAdmittedInAStepThatPreempted) {
  StepBudget budget = Budget();
  budget.admit = false;
  const StepPlan plan = Plan(budget, {Running(33, 32)}, {Waiting(1)});
  EXPECT_THAT(plan.running, ElementsAre(Rows(0, 1)));
  EXPECT_THAT(plan.admitted, IsEmpty());
}

TEST(BatcherTest, APrefillTakesTheChunkThatItsBlocksAllow) {
  StepBudget budget = Budget();
  budget.free_blocks = 2;
  // Holds 2 blocks with 20 tokens: 12 more fit there, and 32 in two new blocks.
  EXPECT_THAT(Plan(budget, {Running(100, 20)}, {}).running, ElementsAre(Rows(0, 44)));
}

TEST(BatcherTest, APrefillWithoutBlocksWaitsForDecodesToEnd) {
  StepBudget budget = Budget();
  budget.free_blocks = 0;
  const StepPlan plan = Plan(budget, {Running(100, 32), Running(21, 20)}, {});
  EXPECT_EQ(plan.preempt, -1);
  EXPECT_THAT(plan.running, ElementsAre(Rows(1, 1)));
}

TEST(BatcherTest, PrefillsThatBlockEachOtherPreemptTheLatest) {
  StepBudget budget = Budget();
  budget.free_blocks = 0;
  EXPECT_EQ(Plan(budget, {Running(100, 32), Running(100, 48)}, {}).preempt, 1);
}

TEST(BatcherTest, ASharedBlockCostsACopy) {
  StepBudget budget = Budget();
  budget.free_blocks = 1;
  std::vector<SequenceView> running = {Running(21, 20), Running(21, 20)};
  for (SequenceView& view : running) view.extra_blocks = 1;
  EXPECT_EQ(Plan(budget, running, {}).preempt, 1);
  budget.free_blocks = 2;
  EXPECT_THAT(Plan(budget, running, {}).running, ElementsAre(Rows(0, 1), Rows(1, 1)));
}

TEST(BatcherTest, AdmitsOnlyWhatFitsAsAWhole) {
  StepBudget budget = Budget();
  budget.free_blocks = 8;
  // The running prefill takes three blocks.
  EXPECT_THAT(Plan(budget, {Running(60, 16)}, {Waiting(81)}).admitted, IsEmpty());
  EXPECT_THAT(Plan(budget, {Running(60, 16)}, {Waiting(80)}).admitted, ElementsAre(Rows(0, 20)));
}

TEST(BatcherTest, AdmissionLeavesRoomForWhatRunningPrefillsStillNeed) {
  StepBudget budget = Budget();
  budget.free_blocks = 8;
  budget.max_logits_rows = 16;
  SequenceView view = Running(100, 16);
  view.logits_from = 16;
  // It takes 16 rows and one block now, and five blocks later: two of eight are left.
  EXPECT_THAT(Plan(budget, {view}, {Waiting(33)}).admitted, IsEmpty());
  EXPECT_THAT(Plan(budget, {view}, {Waiting(32)}).admitted, ElementsAre(Rows(0, 31)));
}

TEST(BatcherTest, APrefixThatNobodyHoldsUsesUpFreeBlocks) {
  StepBudget budget = Budget();
  budget.free_blocks = 4;
  SequenceView view = Waiting(64);
  view.computed_tokens = 48;
  view.blocks_held = 3;
  view.extra_blocks = 3;
  EXPECT_THAT(Plan(budget, {}, {view}).admitted, ElementsAre(Rows(0, 16)));
  budget.free_blocks = 3;
  EXPECT_THAT(Plan(budget, {}, {view}).admitted, IsEmpty());
  view.extra_blocks = 2;  // somebody else holds one
  EXPECT_THAT(Plan(budget, {}, {view}).admitted, ElementsAre(Rows(0, 16)));
}

TEST(BatcherTest, LogitsRowsLimitAChunkWithPromptLogprobs) {
  StepBudget budget = Budget();
  budget.max_logits_rows = 10;
  SequenceView view = Running(50, 8);
  view.logits_from = 8;
  EXPECT_THAT(Plan(budget, {view}, {}).running, ElementsAre(Rows(0, 10)));
  view.logits_from = 28;  // the rows before it need none
  EXPECT_THAT(Plan(budget, {view}, {}).running, ElementsAre(Rows(0, 30)));
  // A decoding sequence comes first.
  EXPECT_THAT(Plan(budget, {view, Running(21, 20)}, {}).running,
              ElementsAre(Rows(1, 1), Rows(0, 29)));
}

TEST(BatcherTest, ALongPromptBehindAWindowIsAdmittedWithTheBlocksOfTheWindow) {
  StepBudget budget = Budget();
  budget.free_blocks = 4;
  EXPECT_THAT(Plan(budget, {}, {Waiting(1000)}).admitted, IsEmpty());
  budget.max_sequence_blocks = 4;
  EXPECT_THAT(Plan(budget, {}, {Waiting(1000)}).admitted, ElementsAre(Rows(0, 64)));
}

// Plays whole workloads with exclusive blocks: every plan keeps its budgets, makes progress, and
// all sequences end.
TEST(BatcherTest, RandomWorkloadsEndWithinEveryBudget) {
  std::mt19937 random(11);
  for (int round = 0; round < 200; ++round) {
    struct State {
      SequenceView view;
      int32_t end;
      int arrival;
    };
    const int32_t total_blocks = 6 + static_cast<int32_t>(random() % 10);
    StepBudget budget{.max_rows = 4 + static_cast<int32_t>(random() % 40), .max_sequences = 4};
    budget.max_logits_rows = 4 + static_cast<int32_t>(random() % 4);
    std::deque<State> waiting;
    for (int i = 0; i < 12; ++i) {
      SequenceView view = Waiting(1 + static_cast<int32_t>(random() % 60));
      if (random() % 4 == 0) view.logits_from = 0;
      waiting.push_back(
          {.view = view,
           .end = view.num_tokens + static_cast<int32_t>(random() % (96 - view.num_tokens)),
           .arrival = i});
    }
    std::vector<State> running;
    const auto by_arrival = [](const State& a, const State& b) { return a.arrival < b.arrival; };
    for (int step = 0; !running.empty() || !waiting.empty(); ++step) {
      ASSERT_LT(step, 10000);
      StepPlan plan;
      budget.admit = true;
      while (true) {
        int32_t used = 0;
        std::vector<SequenceView> views;
        for (const State& state : running) {
          views.push_back(state.view);
          used += state.view.blocks_held;
        }
        budget.free_blocks = total_blocks - used;
        size_t next = 0;
        PlanStep(
            budget, views,
            [&]() -> const SequenceView* {
              return next < waiting.size() ? &waiting[next++].view : nullptr;
            },
            plan);
        if (plan.preempt < 0) break;
        ASSERT_EQ(plan.preempt, static_cast<int32_t>(running.size()) - 1);
        State victim = running.back();
        running.pop_back();
        victim.view.computed_tokens = 0;
        victim.view.blocks_held = 0;
        waiting.insert(std::upper_bound(waiting.begin(), waiting.end(), victim, by_arrival),
                       victim);
        budget.admit = false;
      }
      std::vector<std::pair<State*, int32_t>> scheduled;
      const size_t first_admitted = running.size();
      for (size_t i = 0; i < plan.admitted.size(); ++i) {
        running.push_back(waiting.front());
        waiting.pop_front();
      }
      for (const ScheduledRows& rows : plan.running) {
        scheduled.emplace_back(&running[rows.index], rows.num_rows);
      }
      for (const ScheduledRows& rows : plan.admitted) {
        scheduled.emplace_back(&running[first_admitted + rows.index], rows.num_rows);
      }
      int32_t rows = 0;
      int32_t logits_rows = 0;
      int32_t blocks = 0;
      for (auto& [state, num_rows] : scheduled) {
        SequenceView& view = state->view;
        ASSERT_GT(num_rows, 0);
        const int32_t end = view.computed_tokens + num_rows;
        ASSERT_LE(end, view.num_tokens);
        rows += num_rows;
        logits_rows += std::max(0, end - std::max(view.logits_from, view.computed_tokens));
        view.computed_tokens = end;
        view.blocks_held = CeilDiv(end, kKvBlockTokens);
        if (end == view.num_tokens) {
          ++view.num_tokens;
          view.logits_from = view.num_tokens - 1;
        }
      }
      for (const State& state : running) blocks += state.view.blocks_held;
      ASSERT_GT(rows, 0);
      ASSERT_LE(rows, budget.max_rows);
      ASSERT_LE(logits_rows, budget.max_logits_rows);
      ASSERT_LE(blocks, total_blocks);
      ASSERT_LE(running.size(), 4u);
      std::erase_if(running, [](const State& state) { return state.view.num_tokens > state.end; });
      std::sort(running.begin(), running.end(), by_arrival);
    }
  }
}

}  // namespace
}  // namespace moesaic
