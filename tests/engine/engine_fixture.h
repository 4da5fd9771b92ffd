#pragma once

#include <memory>
#include <vector>

#include "base/metrics.h"
#include "engine/engine.h"
#include "tests/engine/fake_model.h"
#include "tests/engine/recording_sink.h"

namespace moesaic {

// An engine over a FakeModel, and requests to it.
class EngineFixture {
 public:
  struct Options {
    EngineOptions engine = {
        .max_batch_tokens = 64, .max_logits_rows = 64, .max_sequences = 16, .max_queue = 256};
    FakeModel::Options model;
    int32_t kv_blocks = 256;
    std::function<absl::Status(const Batch&)> on_step;
  };

  explicit EngineFixture(Options options);

  Engine& engine() { return *engine_; }
  std::string RenderMetrics() const { return metrics_.Render(); }
  // The value of a metric's line, labels included in `name`.
  double Metric(const std::string& name) const;

  // The next request: ids count from 1.
  Request MakeRequest(std::vector<int32_t> prompt, SamplingParams params);
  // Submits, expecting it to be accepted.
  std::shared_ptr<RecordingSink> Start(Request request);
  std::shared_ptr<RecordingSink> Start(std::vector<int32_t> prompt, SamplingParams params);
  // Submits and waits for the end, expecting success.
  std::shared_ptr<RecordingSink> Run(std::vector<int32_t> prompt, SamplingParams params);

 private:
  MetricsRegistry metrics_;
  std::unique_ptr<Engine> engine_;
  RequestId last_id_ = 0;
};

// `length` tokens in [0, vocab_size), different for each seed.
std::vector<int32_t> RandomPrompt(uint64_t seed, int32_t length, int32_t vocab_size = 64);
SamplingParams GreedyParams(int32_t max_tokens);
SamplingParams SeededParams(uint64_t seed, int32_t max_tokens);

}  // namespace moesaic
