#include "tests/engine/engine_fixture.h"

#include <random>
#include <sstream>

#include <gtest/gtest.h>

#include "base/isa.h"
#include "kernels/kernel_table.h"

namespace moesaic {

EngineFixture::EngineFixture(Options options) {
  auto model = std::make_unique<FakeModel>(options.model);
  model->on_step = std::move(options.on_step);
  options.engine.kv_memory_bytes = options.kv_blocks * model->kv_shape().BlockBytes();
  auto engine =
      Engine::Create(options.engine, std::move(model), kernels::CpuKernels(DetectIsa()), metrics_);
  EXPECT_TRUE(engine.ok()) << engine.status().ToString();
  engine_ = std::move(*engine);
}

double EngineFixture::Metric(const std::string& name) const {
  std::istringstream lines(metrics_.Render());
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + " ")) return std::stod(line.substr(name.size() + 1));
  }
  ADD_FAILURE() << "no metric " << name;
  return -1;
}

Request EngineFixture::MakeRequest(std::vector<int32_t> prompt, SamplingParams params) {
  Request request;
  request.id = ++last_id_;
  request.prompt = std::move(prompt);
  request.params = std::move(params);
  request.arrival = absl::Now();
  return request;
}

std::shared_ptr<RecordingSink> EngineFixture::Start(Request request) {
  auto sink = std::make_shared<RecordingSink>(request.params.n);
  const absl::Status status = engine_->Submit(std::move(request), sink);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return sink;
}

std::shared_ptr<RecordingSink> EngineFixture::Start(std::vector<int32_t> prompt,
                                                    SamplingParams params) {
  return Start(MakeRequest(std::move(prompt), std::move(params)));
}

std::shared_ptr<RecordingSink> EngineFixture::Run(std::vector<int32_t> prompt,
                                                  SamplingParams params) {
  auto sink = Start(std::move(prompt), std::move(params));
  const absl::Status status = sink->Wait();
  EXPECT_TRUE(status.ok()) << status.ToString();
  return sink;
}

std::vector<int32_t> RandomPrompt(uint64_t seed, int32_t length, int32_t vocab_size) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> prompt(length);
  for (int32_t& token : prompt) token = static_cast<int32_t>(random() % vocab_size);
  return prompt;
}

SamplingParams GreedyParams(int32_t max_tokens) {
  SamplingParams params;
  params.temperature = 0;
  params.max_tokens = max_tokens;
  return params;
}

SamplingParams SeededParams(uint64_t seed, int32_t max_tokens) {
  SamplingParams params;
  params.seed = seed;
  params.max_tokens = max_tokens;
  return params;
}

}  // namespace moesaic
