#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/isa.h"
#include "engine/logprobs.h"
#include "tests/engine/engine_fixture.h"

namespace moesaic {
namespace {

using Options = EngineFixture::Options;

TEST(EngineTest, GreedyTokensAreThoseOfTheModelAlone) {
  EngineFixture fixture({});
  const std::vector<int32_t> prompt = RandomPrompt(1, 37);
  const auto sink = fixture.Run(prompt, GreedyParams(40));
  EXPECT_EQ(sink->tokens(), FakeModel::Greedy({}, prompt, 40));
  EXPECT_EQ(sink->streams()[0].reason, FinishReason::kLength);
  EXPECT_EQ(sink->streams()[0].usage.prompt_tokens, 37);
  EXPECT_EQ(sink->streams()[0].usage.completion_tokens, 40);
  EXPECT_EQ(sink->step_ends(), 40);
}

TEST(EngineTest, MixedRequestsJoiningAndLeavingGetTheirOwnTokens) {
  EngineFixture fixture({});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 40; ++i) {
    sinks.push_back(fixture.Start(RandomPrompt(i, 1 + 7 * i), GreedyParams(1 + i % 23)));
  }
  for (int i = 0; i < 40; ++i) {
    EXPECT_TRUE(sinks[i]->Wait().ok());
    EXPECT_EQ(sinks[i]->tokens(), FakeModel::Greedy({}, RandomPrompt(i, 1 + 7 * i), 1 + i % 23));
  }
}

TEST(EngineTest, ChunkSizesDoNotChangeTokens) {
  for (int32_t max_batch_tokens : {1, 3, 16, 17, 500}) {
    Options options;
    options.engine.max_sequences = 1;
    options.engine.max_batch_tokens = max_batch_tokens;
    EngineFixture fixture(options);
    const auto sink = fixture.Run(RandomPrompt(2, 100), GreedyParams(20));
    EXPECT_EQ(sink->tokens(), FakeModel::Greedy({}, RandomPrompt(2, 100), 20));
  }
}

TEST(EngineTest, StepsKeepTheirBudgets) {
  std::atomic<int> largest = 0;
  Options options;
  options.engine.max_batch_tokens = 20;
  options.engine.max_logits_rows = 16;
  options.on_step = [&](const Batch& batch) {
    largest = std::max(largest.load(), batch.num_rows());
    EXPECT_LE(batch.num_rows(), 20);
    EXPECT_LE(batch.logits_rows.size(), 16u);
    EXPECT_LE(batch.sequences.size(), 16u);
    return absl::OkStatus();
  };
  EngineFixture fixture(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 30; ++i) {
    SamplingParams params = GreedyParams(10);
    if (i % 3 == 0) params.prompt_logprobs = 1;
    sinks.push_back(fixture.Start(RandomPrompt(i, 50), params));
  }
  for (const auto& sink : sinks) EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(largest, 20);
}

TEST(EngineTest, PreemptedSequencesGoOnWithTheSameTokens) {
  for (bool prefix_cache : {true, false}) {
    Options options;
    options.kv_blocks = 14;  // each sequence needs up to 7
    options.engine.prefix_cache = prefix_cache;
    EngineFixture fixture(options);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 12; ++i) {
      SamplingParams params = SeededParams(static_cast<uint64_t>(i), 60);
      params.repetition_penalty = 1.2f;
      params.frequency_penalty = 0.1f;
      params.top_p = 0.9f;
      sinks.push_back(fixture.Start(RandomPrompt(i, 40), params));
    }
    for (const auto& sink : sinks) EXPECT_TRUE(sink->Wait().ok());
    EXPECT_GT(fixture.Metric("moesaic_num_preemptions_total"), 0);
    EXPECT_EQ(fixture.Metric("moesaic_kv_cache_usage_perc"), 0);

    EngineFixture roomy({});
    for (int i = 0; i < 12; ++i) {
      SamplingParams params = SeededParams(static_cast<uint64_t>(i), 60);
      params.repetition_penalty = 1.2f;
      params.frequency_penalty = 0.1f;
      params.top_p = 0.9f;
      EXPECT_EQ(sinks[i]->tokens(), roomy.Run(RandomPrompt(i, 40), params)->tokens());
    }
    EXPECT_EQ(roomy.Metric("moesaic_num_preemptions_total"), 0);
  }
}

TEST(EngineTest, PrefixReuseChangesUsageButNoToken) {
  const std::vector<int32_t> shared = RandomPrompt(3, 80);
  EngineFixture fixture({});
  for (int i = 0; i < 4; ++i) {
    std::vector<int32_t> prompt = shared;
    prompt.push_back(i);
    const auto sink = fixture.Run(prompt, GreedyParams(20));
    EXPECT_EQ(sink->tokens(), FakeModel::Greedy({}, prompt, 20));
    EXPECT_EQ(sink->streams()[0].usage.cached_prompt_tokens, i == 0 ? 0 : 80);
  }
  // The whole prompt is cached, but one row must be computed.
  const auto sink = fixture.Run(shared, GreedyParams(1));
  EXPECT_EQ(sink->streams()[0].usage.cached_prompt_tokens, 64);
  EXPECT_EQ(fixture.Metric("moesaic_prefix_cache_queries_total"), 4 * 81 + 80);
  EXPECT_EQ(fixture.Metric("moesaic_prefix_cache_hits_total"), 3 * 80 + 64);
  EXPECT_EQ(fixture.Metric("moesaic_kv_cache_usage_perc"), 0);
  EXPECT_EQ(fixture.engine().load().kv_blocks_used, 0);
}

TEST(EngineTest, OutputTokensAreReusedByTheNextTurn) {
  EngineFixture fixture({});
  std::vector<int32_t> prompt = RandomPrompt(4, 30);
  const auto first = fixture.Run(prompt, GreedyParams(50));
  for (int32_t token : first->tokens()) prompt.push_back(token);
  const auto second = fixture.Run(prompt, GreedyParams(5));
  EXPECT_EQ(second->streams()[0].usage.cached_prompt_tokens, 64);  // 79 tokens were computed
  EXPECT_EQ(second->tokens(), FakeModel::Greedy({}, prompt, 5));
}

TEST(EngineTest, NoPrefixCacheReusesNothing) {
  Options options;
  options.engine.prefix_cache = false;
  EngineFixture fixture(options);
  for (int i = 0; i < 2; ++i) {
    const auto sink = fixture.Run(RandomPrompt(3, 80), GreedyParams(8));
    EXPECT_EQ(sink->streams()[0].usage.cached_prompt_tokens, 0);
    EXPECT_EQ(sink->tokens(), FakeModel::Greedy({}, RandomPrompt(3, 80), 8));
  }
}

TEST(EngineTest, SlidingWindowFreesBlocksAndKeepsTokens) {
  Options options;
  options.model.sliding_window = 40;
  options.engine.max_sequences = 4;
  options.kv_blocks = 10;  // a full sequence would need 17
  EngineFixture fixture(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 6; ++i) {
    sinks.push_back(
        fixture.Start(RandomPrompt(static_cast<uint64_t>(i % 3), 150 + i % 3), GreedyParams(120)));
  }
  for (int i = 0; i < 6; ++i) {
    EXPECT_TRUE(sinks[i]->Wait().ok());
    EXPECT_EQ(sinks[i]->tokens(),
              FakeModel::Greedy(options.model,
                                RandomPrompt(static_cast<uint64_t>(i % 3), 150 + i % 3), 120));
  }
  EXPECT_EQ(fixture.engine().load().kv_blocks_used, 0);
}

TEST(EngineTest, SequencesOfOneRequestShareThePromptAndDrawWithTheirOwnSeeds) {
  for (int32_t prompt_tokens : {1, 32, 45}) {
    std::atomic<int> rows = 0;
    Options options;
    options.on_step = [&](const Batch& batch) {
      rows += batch.num_rows();
      return absl::OkStatus();
    };
    EngineFixture fixture(options);
    SamplingParams params = SeededParams(100, 30);
    params.n = 4;
    const auto sink = fixture.Run(RandomPrompt(5, prompt_tokens), params);
    // The prompt once, then each sequence's tokens but the last.
    EXPECT_EQ(rows, prompt_tokens + 4 * 29);
    std::set<std::vector<int32_t>> distinct;
    for (int i = 0; i < 4; ++i) {
      distinct.insert(sink->tokens(i));
      const auto alone = fixture.Run(RandomPrompt(5, prompt_tokens),
                                     SeededParams(100 + static_cast<uint64_t>(i), 30));
      EXPECT_EQ(sink->tokens(i), alone->tokens());
    }
    EXPECT_EQ(distinct.size(), 4u);
    EXPECT_EQ(fixture.engine().load().kv_blocks_used, 0);
  }
}

TEST(EngineTest, SequencesOfOneRequestSurvivePreemption) {
  Options options;
  options.kv_blocks = 12;
  EngineFixture tight(options);
  EngineFixture roomy({});
  SamplingParams params = SeededParams(9, 80);
  params.n = 6;
  params.presence_penalty = 0.3f;
  const auto expected = roomy.Run(RandomPrompt(6, 21), params);
  const auto sink = tight.Run(RandomPrompt(6, 21), params);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(sink->tokens(i), expected->tokens(i));
  EXPECT_GT(tight.Metric("moesaic_num_preemptions_total"), 0);
}

TEST(EngineTest, SeedDecidesTheTokensWhateverElseRuns) {
  EngineFixture fixture({});
  const auto alone = fixture.Run(RandomPrompt(7, 20), SeededParams(5, 40));
  std::vector<std::shared_ptr<RecordingSink>> others;
  for (int i = 0; i < 10; ++i) {
    others.push_back(fixture.Start(RandomPrompt(i, 33), SeededParams(i, 25)));
  }
  const auto together = fixture.Run(RandomPrompt(7, 20), SeededParams(5, 40));
  EXPECT_EQ(together->tokens(), alone->tokens());
  for (const auto& other : others) EXPECT_TRUE(other->Wait().ok());
  // Requests without a seed differ from each other.
  SamplingParams unseeded = SeededParams(0, 40);
  unseeded.seed.reset();
  EXPECT_NE(fixture.Run(RandomPrompt(7, 20), unseeded)->tokens(),
            fixture.Run(RandomPrompt(7, 20), unseeded)->tokens());
}

TEST(EngineTest, StopIdsEndASequenceAndAreDelivered) {
  const std::vector<int32_t> prompt = RandomPrompt(8, 10);
  const std::vector<int32_t> greedy = FakeModel::Greedy({}, prompt, 30);
  const auto count_to = [&](int32_t token) {
    return std::find(greedy.begin(), greedy.end(), token) - greedy.begin() + 1;
  };
  Options options;
  options.model.eos_token_ids = {greedy[12]};
  EngineFixture fixture(options);

  const auto eos = fixture.Run(prompt, GreedyParams(30));
  EXPECT_EQ(eos->tokens(),
            std::vector<int32_t>(greedy.begin(), greedy.begin() + count_to(greedy[12])));
  EXPECT_EQ(eos->streams()[0].reason, FinishReason::kStop);
  EXPECT_EQ(eos->streams()[0].usage.completion_tokens, count_to(greedy[12]));

  SamplingParams params = GreedyParams(30);
  params.ignore_eos = true;
  EXPECT_EQ(fixture.Run(prompt, params)->tokens(), greedy);

  params.stop_token_ids = {greedy[5]};
  const auto stopped = fixture.Run(prompt, params);
  EXPECT_EQ(stopped->tokens().size(), static_cast<size_t>(count_to(greedy[5])));
  EXPECT_EQ(stopped->streams()[0].reason, FinishReason::kStop);

  params.min_tokens = 25;  // until then the stop id is not even sampled
  const auto longer = fixture.Run(prompt, params)->tokens();
  EXPECT_GE(longer.size(), 25u);
  EXPECT_EQ(std::count(longer.begin(), longer.begin() + 24, greedy[5]), 0);
}

TEST(EngineTest, TheSinksVerdictEndsASequence) {
  EngineFixture fixture({});
  auto sink = std::make_shared<RecordingSink>(2);
  sink->on_token = [&, count = 0](int32_t sequence, const TokenOutput&) mutable {
    return sequence == 1 && ++count == 7 ? TextSink::Verdict::kStop : TextSink::Verdict::kContinue;
  };
  SamplingParams params = SeededParams(1, 20);
  params.n = 2;
  ASSERT_TRUE(fixture.engine().Submit(fixture.MakeRequest(RandomPrompt(9, 5), params), sink).ok());
  EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sink->streams()[0].reason, FinishReason::kLength);
  EXPECT_EQ(sink->streams()[1].reason, FinishReason::kStop);
  EXPECT_EQ(sink->streams()[1].usage.completion_tokens, 7);
}

TEST(EngineTest, LogprobsAreThoseOfTheModelBeforePenaltiesAndTemperature) {
  EngineFixture fixture({});
  const std::vector<int32_t> prompt = RandomPrompt(10, 40);
  SamplingParams params = SeededParams(3, 10);
  params.temperature = 2.0f;
  params.repetition_penalty = 1.5f;
  params.logprobs = 3;
  params.prompt_logprobs = 2;
  for (int32_t max_logits_rows : {16, 64}) {
    Options options;
    options.engine.max_logits_rows = max_logits_rows;
    EngineFixture chunked(options);
    const auto sink = chunked.Run(prompt, params);
    const kernels::KernelTable& kernels = kernels::CpuKernels(DetectIsa());
    std::vector<int32_t> history = prompt;
    for (const TokenOutput& output : sink->streams()[0].outputs) {
      TokenOutput expected{.token = output.token, .chosen = {}, .top = {}};
      ComputeLogprobs(FakeModel::Logits({}, history), 3, kernels, expected);
      EXPECT_EQ(output.chosen.logprob, expected.chosen.logprob);
      EXPECT_EQ(output.chosen.rank, expected.chosen.rank);
      ASSERT_EQ(output.top.size(), 3u);
      EXPECT_EQ(output.top[2].token, expected.top[2].token);
      history.push_back(output.token);
    }
    ASSERT_TRUE(sink->prompt_logprobs().has_value());
    ASSERT_EQ(sink->prompt_logprobs()->size(), prompt.size() - 1);
    for (size_t i = 0; i + 1 < prompt.size(); ++i) {
      const TokenOutput& output = (*sink->prompt_logprobs())[i];
      TokenOutput expected{.token = prompt[i + 1], .chosen = {}, .top = {}};
      ComputeLogprobs(FakeModel::Logits({}, std::span(prompt).first(i + 1)), 2, kernels, expected);
      EXPECT_EQ(output.token, expected.token);
      EXPECT_EQ(output.chosen.logprob, expected.chosen.logprob);
      ASSERT_EQ(output.top.size(), 2u);
      EXPECT_EQ(output.top[0].token, expected.top[0].token);
    }
  }
}

TEST(EngineTest, PromptLogprobsComeAlthoughThePrefixIsCachedOrTheSequencePreempted) {
  Options options;
  options.kv_blocks = 8;
  EngineFixture fixture(options);
  const std::vector<int32_t> prompt = RandomPrompt(11, 90);
  fixture.Run(prompt, GreedyParams(1));
  SamplingParams params = GreedyParams(30);
  params.prompt_logprobs = 0;
  const auto earlier = fixture.Start(RandomPrompt(12, 20), GreedyParams(90));
  const auto sink = fixture.Run(prompt, params);
  EXPECT_TRUE(earlier->Wait().ok());
  ASSERT_TRUE(sink->prompt_logprobs().has_value());
  EXPECT_EQ(sink->prompt_logprobs()->size(), 89u);
  EXPECT_TRUE(sink->prompt_logprobs()->front().top.empty());
  EXPECT_EQ(sink->tokens(), FakeModel::Greedy({}, prompt, 30));
  // A prompt of one token has none, and says so.
  const auto single = fixture.Run({5}, params);
  ASSERT_TRUE(single->prompt_logprobs().has_value());
  EXPECT_TRUE(single->prompt_logprobs()->empty());
}

TEST(EngineTest, AcceptsExactlyTheRequestsItHasPlacesFor) {
  EngineFixture fixture({});
  fixture.engine().SetHeld(true);
  std::vector<std::shared_ptr<RecordingSink>> accepted;
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    auto sink = std::make_shared<RecordingSink>();
    const absl::Status status =
        fixture.engine().Submit(fixture.MakeRequest(RandomPrompt(i, 8), GreedyParams(4)), sink);
    if (status.ok()) {
      accepted.push_back(std::move(sink));
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
      ++refused;
    }
  }
  EXPECT_EQ(accepted.size(), 272u);
  EXPECT_EQ(refused, 728);
  EXPECT_EQ(fixture.engine().load().waiting, 256);  // the others wait for no one's place
  fixture.engine().SetHeld(false);
  for (const auto& sink : accepted) EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(fixture.engine().load().waiting, 0);
}

TEST(EngineTest, APlaceIsFreeWhenItsRequestHearsTheEnd) {
  Options options;
  options.engine.max_sequences = 1;
  options.engine.max_queue = 0;
  EngineFixture fixture(options);
  auto second = std::make_shared<RecordingSink>();
  auto first = std::make_shared<RecordingSink>();
  first->on_end = [&] {
    EXPECT_TRUE(fixture.engine()
                    .Submit(fixture.MakeRequest(RandomPrompt(2, 4), GreedyParams(3)), second)
                    .ok());
  };
  ASSERT_TRUE(fixture.engine()
                  .Submit(fixture.MakeRequest(RandomPrompt(1, 4), GreedyParams(3)), first)
                  .ok());
  EXPECT_TRUE(first->Wait().ok());
  EXPECT_TRUE(second->Wait().ok());
}

TEST(EngineTest, RefusesWhatCanNeverFit) {
  Options options;
  options.model.max_positions = 200;
  options.kv_blocks = 8;
  EngineFixture fixture(options);
  const auto code = [&](std::vector<int32_t> prompt, SamplingParams params) {
    return fixture.engine()
        .Submit(fixture.MakeRequest(std::move(prompt), std::move(params)),
                std::make_shared<RecordingSink>())
        .code();
  };
  EXPECT_EQ(code({}, GreedyParams(1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({64}, GreedyParams(1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({-1}, GreedyParams(1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(RandomPrompt(1, 199), GreedyParams(2)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({1}, GreedyParams(2147483647)), absl::StatusCode::kInvalidArgument);
  // 8 blocks hold 128 tokens, and the last one's KV is not needed.
  EXPECT_EQ(code(RandomPrompt(1, 100), GreedyParams(30)), absl::StatusCode::kInvalidArgument);
  SamplingParams many = GreedyParams(1);
  many.n = 17;
  EXPECT_EQ(code({1}, many), absl::StatusCode::kInvalidArgument);
  const auto sink = fixture.Run(RandomPrompt(1, 100), GreedyParams(29));
  EXPECT_EQ(sink->tokens(), FakeModel::Greedy({}, RandomPrompt(1, 100), 29));
}

TEST(EngineTest, CancelEndsARequestWithinTwoSteps) {
  std::atomic<int> steps = 0;
  Options options;
  options.on_step = [&](const Batch&) {
    ++steps;
    return absl::OkStatus();
  };
  EngineFixture fixture(options);
  auto sink = std::make_shared<RecordingSink>();
  Request request = fixture.MakeRequest(RandomPrompt(1, 20), GreedyParams(1000));
  const RequestId id = request.id;
  int step_of_cancel = 0;
  sink->on_token = [&, count = 0](int32_t, const TokenOutput&) mutable {
    if (++count == 5) {
      step_of_cancel = steps;
      fixture.engine().Cancel(id);
    }
    return TextSink::Verdict::kContinue;
  };
  int step_of_end = 0;
  sink->on_end = [&] { step_of_end = steps; };
  ASSERT_TRUE(fixture.engine().Submit(std::move(request), sink).ok());
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_LE(step_of_end - step_of_cancel, 2);
  EXPECT_EQ(sink->streams()[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(fixture.Metric("moesaic_kv_cache_usage_perc"), 0);
  EXPECT_EQ(fixture.Metric("moesaic_num_requests_running"), 0);
  fixture.engine().Cancel(id);     // ended
  fixture.engine().Cancel(12345);  // never seen
  fixture.Run(RandomPrompt(2, 20), GreedyParams(3));
}

TEST(EngineTest, WaitingRequestsCanBeCancelledToo) {
  EngineFixture fixture({});
  fixture.engine().SetHeld(true);
  SamplingParams params = GreedyParams(5);
  params.n = 3;
  const auto sink = fixture.Start(RandomPrompt(1, 20), params);  // request 1
  fixture.engine().Cancel(1);
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kCancelled);
  for (const auto& stream : sink->streams()) {
    EXPECT_EQ(stream.reason, FinishReason::kCancelled);
    EXPECT_EQ(stream.usage.completion_tokens, 0);
  }
}

TEST(EngineTest, DeadlinesEndWaitingAndRunningRequests) {
  EngineFixture fixture({});
  fixture.engine().SetHeld(true);
  Request waiting = fixture.MakeRequest(RandomPrompt(1, 20), GreedyParams(5));
  waiting.deadline = absl::Now() + absl::Milliseconds(20);
  const auto held = fixture.Start(std::move(waiting));
  EXPECT_EQ(held->Wait().code(), absl::StatusCode::kDeadlineExceeded);
  fixture.engine().SetHeld(false);

  // One sequence runs on until its deadline has passed, whatever the machine's speed.
  Request running = fixture.MakeRequest(RandomPrompt(1, 20), GreedyParams(3000));
  const absl::Time deadline = absl::Now() + absl::Milliseconds(20);
  running.deadline = deadline;
  auto sink = std::make_shared<RecordingSink>();
  sink->on_token = [&](int32_t, const TokenOutput&) {
    absl::SleepFor(absl::Milliseconds(1));
    return TextSink::Verdict::kContinue;
  };
  ASSERT_TRUE(fixture.engine().Submit(std::move(running), sink).ok());
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(absl::Now(), deadline);
  EXPECT_EQ(fixture.engine().load().kv_blocks_used, 0);
}

TEST(EngineTest, AFailedStepFailsItsRequestsAndLeavesTheEngineServing) {
  std::atomic<bool> fail = false;
  Options options;
  options.on_step = [&](const Batch&) {
    return fail ? absl::InternalError("expert_ffn: no") : absl::OkStatus();
  };
  EngineFixture fixture(options);
  const std::vector<int32_t> prompt = RandomPrompt(1, 50);
  fail = true;
  SamplingParams two = GreedyParams(5);
  two.n = 2;
  const auto failed = fixture.Start(prompt, two);
  const absl::Status status = failed->Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "expert_ffn: no");
  EXPECT_EQ(failed->streams()[1].reason, FinishReason::kError);
  fail = false;
  // Nothing that the failed step left in the KV cache may be reused.
  const auto sink = fixture.Run(prompt, GreedyParams(20));
  EXPECT_EQ(sink->tokens(), FakeModel::Greedy({}, prompt, 20));
  EXPECT_EQ(sink->streams()[0].usage.cached_prompt_tokens, 0);
  EXPECT_EQ(fixture.Metric("moesaic_request_success_total{finished_reason=\"error\"}"), 2);
}

TEST(EngineTest, DrainLetsRequestsFinishAndRefusesNewOnes) {
  EngineFixture fixture({});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 20; ++i) {
    sinks.push_back(fixture.Start(RandomPrompt(i, 20), GreedyParams(10)));
  }
  fixture.engine().Drain(absl::InfiniteFuture());
  for (const auto& sink : sinks) {
    EXPECT_TRUE(sink->Wait().ok());
    EXPECT_EQ(sink->tokens().size(), 10u);
  }
  EXPECT_EQ(
      fixture.engine()
          .Submit(fixture.MakeRequest({1}, GreedyParams(1)), std::make_shared<RecordingSink>())
          .code(),
      absl::StatusCode::kUnavailable);
}

TEST(EngineTest, DrainCancelsWhatIsLeftAtItsDeadline) {
  EngineFixture fixture({});
  fixture.engine().SetHeld(true);
  const auto sink = fixture.Start(RandomPrompt(1, 20), GreedyParams(10));
  fixture.engine().Drain(absl::Now());
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kCancelled);
}

TEST(EngineTest, DestructionCancelsWhatIsLeft) {
  std::shared_ptr<RecordingSink> running;
  std::shared_ptr<RecordingSink> waiting;
  {
    Options options;
    options.engine.max_sequences = 1;
    EngineFixture fixture(options);
    running = fixture.Start(RandomPrompt(1, 20), GreedyParams(4000));
    waiting = fixture.Start(RandomPrompt(1, 20), GreedyParams(4000));
    running->WaitForTokens(3);
  }
  EXPECT_EQ(running->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->Wait().code(), absl::StatusCode::kCancelled);
}

TEST(EngineTest, RequestIdsInProgressAreRefused) {
  EngineFixture fixture({});
  fixture.engine().SetHeld(true);
  Request request = fixture.MakeRequest({1, 2}, GreedyParams(2));
  const auto sink = fixture.Start(request);
  EXPECT_EQ(fixture.engine().Submit(request, std::make_shared<RecordingSink>()).code(),
            absl::StatusCode::kAlreadyExists);
  fixture.engine().SetHeld(false);
  EXPECT_TRUE(sink->Wait().ok());
}

TEST(EngineTest, CreateRefusesBadOptions) {
  const auto code = [](const EngineOptions& options) {
    MetricsRegistry metrics;
    return Engine::Create(options, std::make_unique<FakeModel>(FakeModel::Options{}),
                          kernels::CpuKernels(DetectIsa()), metrics)
        .status()
        .code();
  };
  EXPECT_EQ(code({}), absl::StatusCode::kOk);
  EXPECT_EQ(code({.max_sequences = 0}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_queue = -1}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_batch_tokens = 63}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_model_len = 4097}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_model_len = -1}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.kv_memory_bytes = 1}), absl::StatusCode::kInvalidArgument);
}

TEST(EngineTest, MetricsCountTheWork) {
  EngineFixture fixture({});
  for (int i = 0; i < 3; ++i) fixture.Run(RandomPrompt(i, 10), GreedyParams(5));
  EXPECT_EQ(fixture.Metric("moesaic_prompt_tokens_total"), 30);
  EXPECT_EQ(fixture.Metric("moesaic_generation_tokens_total"), 15);
  EXPECT_EQ(fixture.Metric("moesaic_request_success_total{finished_reason=\"length\"}"), 3);
  EXPECT_EQ(fixture.Metric("moesaic_request_success_total{finished_reason=\"stop\"}"), 0);
  EXPECT_EQ(fixture.Metric("moesaic_time_to_first_token_seconds_count"), 3);
  EXPECT_EQ(fixture.Metric("moesaic_inter_token_latency_seconds_count"), 12);
  EXPECT_EQ(fixture.Metric("moesaic_e2e_request_latency_seconds_count"), 3);
  EXPECT_EQ(fixture.Metric("moesaic_request_queue_time_seconds_count"), 3);
  EXPECT_EQ(fixture.Metric("moesaic_iteration_tokens_total_count"), 15);
  EXPECT_EQ(fixture.Metric("moesaic_iteration_tokens_total_sum"), 3 * (10 + 4));
  EXPECT_EQ(fixture.Metric("moesaic_request_generation_tokens_sum"), 15);
}

}  // namespace
}  // namespace moesaic
