// Random workloads under random, often very tight budgets: whatever is batched, preempted, forked,
// reused or released, each request gets the tokens and log-probabilities that it gets alone.

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/engine/engine_fixture.h"

namespace moesaic {
namespace {

Request RandomRequest(std::mt19937& random) {
  Request request;
  request.prompt = RandomPrompt(random() % 4, 1 + static_cast<int32_t>(random() % 100));
  SamplingParams& params = request.params;
  params = SeededParams(random(), 1 + static_cast<int32_t>(random() % 60));
  if (random() % 3 == 0) params.temperature = 0;
  if (random() % 3 == 0) params.n = 1 + static_cast<int32_t>(random() % 4);
  if (random() % 3 == 0) params.prompt_logprobs = static_cast<int32_t>(random() % 3);
  if (random() % 3 == 0) params.logprobs = static_cast<int32_t>(random() % 3);
  if (random() % 3 == 0) params.frequency_penalty = 0.5f;
  if (random() % 3 == 0) params.top_p = 0.8f;
  if (random() % 4 == 0) params.stop_token_ids = {static_cast<int32_t>(random() % 64)};
  return request;
}

std::vector<double> Heard(const RecordingSink& sink) {
  std::vector<double> heard;
  const auto add = [&](const TokenOutput& output) {
    heard.insert(heard.end(), {static_cast<double>(output.token), double{output.chosen.logprob}});
    for (const TokenLogprob& top : output.top) heard.push_back(top.token);
  };
  for (const RecordingSink::Stream& stream : sink.streams()) {
    heard.push_back(static_cast<double>(stream.reason));
    for (const TokenOutput& output : stream.outputs) add(output);
  }
  if (sink.prompt_logprobs()) {
    for (const TokenOutput& output : *sink.prompt_logprobs()) add(output);
  }
  return heard;
}

class EngineWorkloadTest : public testing::TestWithParam<uint32_t> {};

TEST_P(EngineWorkloadTest, EachRequestGetsWhatItGetsAlone) {
  std::mt19937 random(GetParam());
  EngineFixture::Options options;
  options.model.sliding_window = random() % 2 == 0 ? 0 : 1 + static_cast<int32_t>(random() % 60);
  EngineFixture roomy(options);
  options.engine.prefix_cache = random() % 3 != 0;
  options.engine.max_sequences = 4 + static_cast<int32_t>(random() % 5);
  options.engine.max_batch_tokens =
      options.engine.max_sequences + static_cast<int32_t>(random() % 50);
  options.engine.max_logits_rows =
      options.engine.max_sequences + static_cast<int32_t>(random() % 10);
  options.kv_blocks = 2 + static_cast<int32_t>(random() % 16);
  EngineFixture tight(options);

  std::vector<Request> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 24; ++i) {
    Request request = RandomRequest(random);
    request = tight.MakeRequest(request.prompt, request.params);
    auto sink = std::make_shared<RecordingSink>(request.params.n);
    const absl::Status status = tight.engine().Submit(request, sink);
    if (!status.ok()) {
      // Too long for the few blocks.
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      continue;
    }
    requests.push_back(std::move(request));
    sinks.push_back(std::move(sink));
  }
  for (size_t i = 0; i < sinks.size(); ++i) {
    EXPECT_TRUE(sinks[i]->Wait().ok());
    const auto alone = roomy.Run(requests[i].prompt, requests[i].params);
    EXPECT_EQ(Heard(*sinks[i]), Heard(*alone)) << "request " << i;
  }
  EXPECT_EQ(tight.engine().load().kv_blocks_used, 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, EngineWorkloadTest, testing::Range(0u, 60u));

}  // namespace
}  // namespace moesaic
