// A step of which some rows failed: their requests end, the others do not notice.

#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/isa.h"
#include "base/metrics.h"
#include "engine/engine.h"
#include "tests/engine/engine_fixture.h"

namespace moesaic {
namespace {

class FailedRowsTest : public testing::Test {
 protected:
  FailedRowsTest() {
    auto model = std::make_unique<FakeModel>(FakeModel::Options{});
    model->on_step = [this, fake = model.get()](const Batch& batch) {
      fake->failed_rows.clear();
      const std::lock_guard lock(mutex_);
      for (const BatchSequence& sequence : batch.sequences) {
        const int32_t end = sequence.context_tokens + sequence.num_rows;
        if (!failing_.contains(sequence.request) || end <= fail_at_) continue;
        // Twice, as of two experts.
        const int32_t row = sequence.first_row + sequence.num_rows - 1;
        fake->failed_rows.push_back({row, absl::DataLossError("layer 1, expert 2")});
        fake->failed_rows.push_back({row, absl::UnavailableError("later")});
      }
      return absl::OkStatus();
    };
    const int64_t kv_memory_bytes = model->kv_shape().BlockBytes() * 256;
    auto created = Engine::Create({.max_batch_tokens = 64,
                                   .max_logits_rows = 64,
                                   .max_sequences = 16,
                                   .max_queue = 256,
                                   .kv_memory_bytes = kv_memory_bytes},
                                  std::move(model), kernels::CpuKernels(DetectIsa()), metrics_);
    EXPECT_TRUE(created.ok()) << created.status();
    engine_ = *std::move(created);
  }

  std::shared_ptr<RecordingSink> Start(std::vector<int32_t> prompt, SamplingParams params) {
    auto sink = std::make_shared<RecordingSink>(params.n);
    Request request;
    request.id = ++id_;
    request.prompt = std::move(prompt);
    request.params = std::move(params);
    request.arrival = absl::Now();
    const absl::Status status = engine_->Submit(std::move(request), sink);
    EXPECT_TRUE(status.ok()) << status;
    return sink;
  }

  MetricsRegistry metrics_;
  std::mutex mutex_;
  std::set<int64_t> failing_;  // requests, in the order of arrival
  int32_t fail_at_ = 0;        // from this position on
  RequestId id_ = 0;
  std::unique_ptr<Engine> engine_;
};

TEST_F(FailedRowsTest, OnlyTheirRequestsFail) {
  engine_->SetHeld(true);
  failing_ = {1, 4, 7};
  fail_at_ = 50;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 10; ++i) sinks.push_back(Start(RandomPrompt(i, 40), GreedyParams(30)));
  engine_->SetHeld(false);
  for (int i = 0; i < 10; ++i) {
    const absl::Status status = sinks[i]->Wait();
    const std::vector<int32_t> whole = FakeModel::Greedy({}, RandomPrompt(i, 40), 30);
    if (!failing_.contains(i)) {
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_EQ(sinks[i]->tokens(), whole);
      continue;
    }
    EXPECT_EQ(status, absl::DataLossError("layer 1, expert 2"));
    EXPECT_EQ(sinks[i]->streams()[0].reason, FinishReason::kError);
    // What came before the failure stands.
    const std::vector<int32_t> tokens = sinks[i]->tokens();
    EXPECT_EQ(tokens, std::vector<int32_t>(whole.begin(), whole.begin() + 11));
  }
  EXPECT_EQ(engine_->load().kv_blocks_used, 0);
}

TEST_F(FailedRowsTest, APromptThatFailsLeavesNothingBehind) {
  failing_ = {0};
  fail_at_ = 100;  // in its second step
  SamplingParams params = SeededParams(1, 10);
  params.n = 3;
  const auto sink = Start(RandomPrompt(1, 200), params);
  EXPECT_TRUE(absl::IsDataLoss(sink->Wait()));
  EXPECT_EQ(engine_->load().kv_blocks_used, 0);
  // The same prompt again reuses nothing of the step that failed.
  const auto again = Start(RandomPrompt(1, 200), GreedyParams(20));
  EXPECT_TRUE(again->Wait().ok());
  EXPECT_EQ(again->tokens(), FakeModel::Greedy({}, RandomPrompt(1, 200), 20));
  EXPECT_LE(again->streams()[0].usage.cached_prompt_tokens, 64);
  EXPECT_EQ(engine_->load().kv_blocks_used, 0);
}

}  // namespace
}  // namespace moesaic
