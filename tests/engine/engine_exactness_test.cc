// Bit identity through the whole engine with the real network: every log-probability of every token
// is the same whether the request runs alone, in a full batch, after preemption, on a cached
// prefix, in other chunks or on other threads.

#include <bit>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "base/isa.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "tests/checkpoint/test_files.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/recording_sink.h"
#include "tests/model/dummy_networks.h"

namespace moesaic {
namespace {

constexpr int32_t kVocabSize = 130;
constexpr int kRequests = 16;

struct Setting {
  int num_threads = 2;
  int32_t max_batch_tokens = 512;
  int32_t max_sequences = 16;
  int32_t kv_blocks = 512;
  bool prefix_cache = false;
};

class RealEngine {
 public:
  RealEngine(const Json& config, DTypeChoice dtype, const Setting& setting)
      : pool_(setting.num_threads) {
    const TempFolder folder;
    folder.Write("config.json", config.dump());
    auto model = Model::Load({.path = folder.path(),
                              .dtype = dtype,
                              .load_format = LoadFormat::kDummy,
                              .dummy_seed = 3,
                              .max_batch_tokens = setting.max_batch_tokens,
                              .max_logits_rows = setting.max_batch_tokens},
                             kernels_, {.pool = &pool_});
    EXPECT_TRUE(model.ok()) << model.status();
    const int64_t block_bytes = (*model)->kv_shape().BlockBytes();
    auto engine = Engine::Create({.max_batch_tokens = setting.max_batch_tokens,
                                  .max_logits_rows = setting.max_batch_tokens,
                                  .max_sequences = setting.max_sequences,
                                  .kv_memory_bytes = setting.kv_blocks * block_bytes,
                                  .prefix_cache = setting.prefix_cache},
                                 *std::move(model), kernels_, metrics_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  std::shared_ptr<RecordingSink> Start(const Request& request) {
    Request copy = request;
    copy.id = ++last_id_;
    auto sink = std::make_shared<RecordingSink>(request.params.n);
    const absl::Status status = engine_->Submit(std::move(copy), sink);
    EXPECT_TRUE(status.ok()) << status;
    return sink;
  }

  bool Preempted() const {
    return metrics_.Render().find("moesaic_num_preemptions_total 0") == std::string::npos;
  }

 private:
  const kernels::KernelTable& kernels_ = kernels::CpuKernels(DetectIsa());
  MetricsRegistry metrics_;
  ThreadPool pool_;
  std::unique_ptr<Engine> engine_;
  RequestId last_id_ = 0;
};

// Mixed lengths and parameters; all ask for the whole distribution at each of their tokens, and
// every fourth also for its prompt's.
std::vector<Request> MakeRequests() {
  std::vector<Request> requests(kRequests);
  for (int i = 0; i < kRequests; ++i) {
    Request& request = requests[i];
    request.prompt = RandomPrompt(50, 40, kVocabSize);  // in common
    for (int32_t token : RandomPrompt(i, (i * 37) % 150 + 1, kVocabSize)) {
      request.prompt.push_back(token);
    }
    request.params = i % 2 == 0 ? GreedyParams(6 + i) : SeededParams(i, 6 + i);
    request.params.logprobs = kVocabSize;
    if (i % 4 == 0) request.params.prompt_logprobs = 2;
    if (i % 5 == 1) request.params.n = 2;
    if (i % 3 == 1) request.params.repetition_penalty = 1.1f;
    request.arrival = absl::Now();
  }
  return requests;
}

// All that a sink was told, with log-probabilities as their bits.
std::vector<uint32_t> Bits(const RecordingSink& sink) {
  std::vector<uint32_t> bits;
  const auto add = [&](const TokenOutput& output) {
    bits.push_back(static_cast<uint32_t>(output.token));
    bits.push_back(std::bit_cast<uint32_t>(output.chosen.logprob));
    for (const TokenLogprob& top : output.top) {
      bits.push_back(static_cast<uint32_t>(top.token));
      bits.push_back(std::bit_cast<uint32_t>(top.logprob));
    }
  };
  for (const RecordingSink::Stream& stream : sink.streams()) {
    for (const TokenOutput& output : stream.outputs) add(output);
  }
  if (sink.prompt_logprobs()) {
    for (const TokenOutput& output : *sink.prompt_logprobs()) add(output);
  }
  return bits;
}

using Param = std::tuple<int, DTypeChoice>;

class EngineExactnessTest : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    // Once for each network.
    static std::map<Param, std::vector<std::vector<uint32_t>>> results;
    std::vector<std::vector<uint32_t>>& result = results[GetParam()];
    if (result.empty()) {
      RealEngine engine = Load({});
      for (const Request& request : requests_) {
        const auto sink = engine.Start(request);
        ASSERT_TRUE(sink->Wait().ok());
        result.push_back(Bits(*sink));
        ASSERT_GT(result.back().size(), 6u * 2 * kVocabSize);
      }
    }
    alone_ = result;
  }

  RealEngine Load(const Setting& setting) {
    return RealEngine(Networks()[std::get<0>(GetParam())].config, std::get<1>(GetParam()), setting);
  }

  // All requests at once.
  void ExpectTheSameTogether(RealEngine& engine) {
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const Request& request : requests_) sinks.push_back(engine.Start(request));
    for (int i = 0; i < kRequests; ++i) {
      ASSERT_TRUE(sinks[i]->Wait().ok());
      EXPECT_TRUE(Bits(*sinks[i]) == alone_[i]) << "request " << i;
    }
  }

  const std::vector<Request> requests_ = MakeRequests();
  std::vector<std::vector<uint32_t>> alone_;
};

TEST_P(EngineExactnessTest, InAFullBatch) {
  RealEngine engine = Load({});
  ExpectTheSameTogether(engine);
  EXPECT_FALSE(engine.Preempted());
}

TEST_P(EngineExactnessTest, AfterPreemption) {
  RealEngine engine = Load({.kv_blocks = 20});
  ExpectTheSameTogether(engine);
  EXPECT_TRUE(engine.Preempted());
}

TEST_P(EngineExactnessTest, OnCachedPrefixes) {
  RealEngine engine = Load({.prefix_cache = true});
  ExpectTheSameTogether(engine);
  for (int i = 0; i < kRequests; ++i) {
    const auto sink = engine.Start(requests_[i]);
    ASSERT_TRUE(sink->Wait().ok());
    EXPECT_TRUE(Bits(*sink) == alone_[i]) << "request " << i;
    const bool computes_all = requests_[i].params.prompt_logprobs.has_value();
    EXPECT_EQ(sink->streams()[0].usage.cached_prompt_tokens > 0, !computes_all);
  }
}

TEST_P(EngineExactnessTest, InSmallChunks) {
  for (int32_t max_batch_tokens : {16, 23}) {
    RealEngine engine = Load({.max_batch_tokens = max_batch_tokens, .prefix_cache = true});
    ExpectTheSameTogether(engine);
  }
}

TEST_P(EngineExactnessTest, OnOtherThreadCounts) {
  for (int num_threads : {1, 3}) {
    RealEngine engine = Load({.num_threads = num_threads, .kv_blocks = 24, .prefix_cache = true});
    ExpectTheSameTogether(engine);
  }
}

INSTANTIATE_TEST_SUITE_P(Networks,
                         EngineExactnessTest,
                         testing::Values(Param(0, DTypeChoice::kFloat32),
                                         Param(1, DTypeChoice::kBFloat16),
                                         Param(2, DTypeChoice::kFloat32),
                                         Param(2, DTypeChoice::kBFloat16),
                                         Param(3, DTypeChoice::kBFloat16)),
                         [](const auto& info) {
                           return std::string(Networks()[std::get<0>(info.param)].name) +
                                  (std::get<1>(info.param) == DTypeChoice::kFloat32 ? "Float32"
                                                                                    : "BFloat16");
                         });

}  // namespace
}  // namespace moesaic
