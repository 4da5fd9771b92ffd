// Exactness of the whole network: a row's logits depend on its own sequence alone, bit for bit.
// Also covers activation_buffers and model. Agreement with transformers is tested on checkpoints.

#include "model/decoder.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/model/checkpoint_writer.h"
#include "tests/model/dummy_networks.h"
#include "tests/model/model_runner.h"

namespace moesaic {
namespace {

constexpr int32_t kMaxBatchTokens = 512;

std::vector<int32_t> RandomTokens(int32_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int32_t> token(0, 129);
  std::vector<int32_t> tokens(count);
  for (int32_t& value : tokens) value = token(random);
  return tokens;
}

std::unique_ptr<ModelRunner> LoadDummy(const Json& config,
                                       DTypeChoice dtype,
                                       Isa isa,
                                       int num_threads) {
  const TempFolder folder;
  folder.Write("config.json", config.dump());
  ModelRunner::Options options;
  options.model.path = folder.path();
  options.model.load_format = LoadFormat::kDummy;
  options.model.dtype = dtype;
  options.model.max_batch_tokens = kMaxBatchTokens;
  options.isa = isa;
  options.num_threads = num_threads;
  options.kv_blocks = 256;
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner = ModelRunner::Load(options);
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

struct Case {
  int network;
  DTypeChoice dtype;
  Isa isa;
};

// Every network on the best instruction set of this machine, and the one with every kind of layer
// on the reference; the others are tested operator by operator.
std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const DTypeChoice dtype : {DTypeChoice::kFloat32, DTypeChoice::kBFloat16}) {
    for (int network = 0; network < 4; ++network) cases.push_back({network, dtype, DetectIsa()});
    if (DetectIsa() != Isa::kPortable) cases.push_back({1, dtype, Isa::kPortable});
  }
  return cases;
}

class BitIdentityTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    config_ = Networks()[GetParam().network].config;
    runner_ = Load(/*num_threads=*/2);
    prompt_ = RandomTokens(300, 1);
    expected_ = *runner_->Logits(prompt_);
    ASSERT_EQ(expected_.size(), prompt_.size() * 130);
  }

  std::unique_ptr<ModelRunner> Load(int num_threads) {
    return LoadDummy(config_, GetParam().dtype, GetParam().isa, num_threads);
  }

  Json config_;
  std::unique_ptr<ModelRunner> runner_;
  std::vector<int32_t> prompt_;
  std::vector<float> expected_;  // of the prompt alone, in one step
};

TEST_P(BitIdentityTest, AnyChunkSize) {
  for (const int32_t chunk : {13, 16, 64, 65, 256}) {
    EXPECT_EQ(*runner_->Logits(prompt_, chunk), expected_) << "chunk " << chunk;
  }
}

// Across the 256-token split of attention.
TEST_P(BitIdentityTest, PrefillThenDecode) {
  ModelRunner::Sequence sequence;
  std::vector<float> logits;
  for (size_t done = 0; done < prompt_.size();) {
    const size_t count = done == 0 ? 240 : 1;
    const ModelRunner::Rows rows = {&sequence, std::span(prompt_).subspan(done, count)};
    const auto step = runner_->Step({&rows, 1});
    ASSERT_TRUE(step.ok()) << step.status();
    logits.insert(logits.end(), step->begin(), step->end());
    done += count;
  }
  EXPECT_EQ(logits, expected_);
}

TEST_P(BitIdentityTest, AnyNumberOfThreads) {
  for (const int threads : {1, 3}) {
    EXPECT_EQ(*Load(threads)->Logits(prompt_), expected_) << threads << " threads";
  }
}

// The sequence runs in a batch with 15 others of other lengths that join and leave, prefill beside
// decode.
TEST_P(BitIdentityTest, AnyNeighbours) {
  constexpr int kNeighbours = 15;
  std::mt19937 random(7);
  std::vector<ModelRunner::Sequence> neighbours(kNeighbours);
  std::vector<std::vector<int32_t>> tokens(kNeighbours);
  for (int i = 0; i < kNeighbours; ++i) tokens[i] = RandomTokens(200, 100 + i);
  ModelRunner::Sequence sequence;
  std::vector<float> logits;
  size_t done = 0;
  while (done < prompt_.size()) {
    const size_t count = std::min<size_t>(1 + random() % 40, prompt_.size() - done);
    std::vector<ModelRunner::Rows> parts;
    size_t first_row = 0;
    const int place = static_cast<int>(random() % (kNeighbours + 1));
    for (int i = 0; i <= kNeighbours; ++i) {
      if (i == place) {
        first_row = 0;
        for (const ModelRunner::Rows& part : parts) first_row += part.tokens.size();
        parts.push_back({&sequence, std::span(prompt_).subspan(done, count)});
      }
      if (i == kNeighbours || random() % 4 == 0) continue;
      if (neighbours[i].context_tokens >= 150) runner_->Free(neighbours[i]);
      const size_t rows = random() % 2 == 0 ? 1 : 1 + random() % 30;
      parts.push_back(
          {&neighbours[i], std::span(tokens[i]).subspan(neighbours[i].context_tokens, rows)});
    }
    const auto step = runner_->Step(parts);
    ASSERT_TRUE(step.ok()) << step.status();
    const std::span<const float> mine = step->subspan(first_row * 130, count * 130);
    logits.insert(logits.end(), mine.begin(), mine.end());
    done += count;
  }
  EXPECT_EQ(logits, expected_);
}

// More rows than go through attention at a time, so that sequences are cut in the middle.
TEST_P(BitIdentityTest, SequencesAcrossTheRowsAttendedAtATime) {
  std::vector<ModelRunner::Sequence> sequences(5);
  std::vector<float> logits[5];
  size_t done[5] = {};
  for (const size_t rows : {60, 97}) {  // 300 and 485 in a step
    std::vector<ModelRunner::Rows> parts;
    for (int i = 0; i < 5; ++i) {
      parts.push_back({&sequences[i], std::span(prompt_).subspan(done[i], rows)});
      done[i] += rows;
    }
    const auto step = runner_->Step(parts);
    ASSERT_TRUE(step.ok()) << step.status();
    for (int i = 0; i < 5; ++i) {
      const std::span<const float> mine = step->subspan(i * rows * 130, rows * 130);
      logits[i].insert(logits[i].end(), mine.begin(), mine.end());
    }
  }
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(std::equal(logits[i].begin(), logits[i].end(), expected_.begin())) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks,
                         BitIdentityTest,
                         testing::ValuesIn(Cases()),
                         [](const auto& info) {
                           const Case& test = info.param;
                           return std::string(Networks()[test.network].name) +
                                  (test.dtype == DTypeChoice::kFloat32 ? "Float32" : "BFloat16") +
                                  (test.isa == DetectIsa() ? "" : "Portable");
                         });

TEST(DecoderTest, BlocksAreInExecutionOrder) {
  const auto runner = LoadDummy(Networks()[1].config, DTypeChoice::kFloat32, Isa::kPortable, 1);
  const std::span<const BlockInfo> blocks = runner->model().blocks();
  ASSERT_EQ(blocks.size(), 8u);
  EXPECT_EQ(blocks.front().kind, BlockKind::kEmbedding);
  for (int32_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(blocks[1 + 2 * layer].kind, BlockKind::kAttention);
    EXPECT_EQ(blocks[1 + 2 * layer].layer, layer);
    EXPECT_EQ(blocks[2 + 2 * layer].kind, BlockKind::kMoe);
    EXPECT_EQ(blocks[2 + 2 * layer].layer, layer);
  }
  EXPECT_EQ(blocks.back().kind, BlockKind::kHead);
  EXPECT_FALSE(runner->model().RunBlock(-1).ok());
  EXPECT_FALSE(runner->model().RunBlock(8).ok());
}

TEST(DecoderTest, OnlyWantedRowsGetLogits) {
  const auto runner = LoadDummy(Networks()[0].config, DTypeChoice::kFloat32, Isa::kPortable, 1);
  const std::vector<int32_t> prompt = RandomTokens(20, 3);
  const std::vector<float> all = *runner->Logits(prompt);
  const std::vector<int32_t> blocks = {3, 5};
  Batch batch;
  batch.tokens = prompt;
  for (int32_t i = 0; i < 20; ++i) batch.positions.push_back(i);
  batch.sequences = {{.num_rows = 20, .block_table = blocks}};
  Model& model = runner->model();
  const auto run = [&] {
    model.BeginStep(batch, runner->kv());
    for (int32_t block = 0; block < 8; ++block) EXPECT_TRUE(model.RunBlock(block).ok());
  };
  batch.logits_rows = {4, 19};
  run();
  ASSERT_EQ(model.logits().size(), 2u * 130);
  EXPECT_TRUE(std::equal(model.logits().begin(), model.logits().begin() + 130, &all[4 * 130]));
  EXPECT_TRUE(std::equal(model.logits().begin() + 130, model.logits().end(), &all[19 * 130]));
  batch.logits_rows = {};
  run();
  EXPECT_TRUE(model.logits().empty());
}

TEST(DecoderTest, CountsTheBytesOfAStep) {
  const auto runner = LoadDummy(Networks()[2].config, DTypeChoice::kBFloat16, Isa::kPortable, 1);
  const std::vector<int32_t> tokens = RandomTokens(61, 4);
  ModelRunner::Sequence sequence;
  ModelRunner::Rows rows = {&sequence, std::span(tokens).first(60)};
  ASSERT_TRUE(runner->Step({&rows, 1}).ok());
  const StepCounters prefill = runner->model().counters();
  rows.tokens = std::span(tokens).subspan(60, 1);
  ASSERT_TRUE(runner->Step({&rows, 1}).ok());
  const StepCounters decode = runner->model().counters();
  // One token visits 2 of 4 experts in 3 layers; 60 random ones visit all.
  EXPECT_EQ(prefill.expert_bytes, 2 * decode.expert_bytes);
  EXPECT_EQ(decode.expert_bytes % 6, 0);
  // At least the real weights: three 96 x 136 matrices of an expert.
  EXPECT_GE(decode.expert_bytes, 6 * 3 * 96 * 136 * 2);
  // The window of 40 tokens, K and V, 3 layers, 2 heads of 24, 2 bytes.
  EXPECT_EQ(decode.kv_bytes, 40 * 2 * 3 * 2 * 24 * 2);
  EXPECT_EQ(prefill.kv_bytes, 60 * 2 * 3 * 2 * 24 * 2);
  // Prefill reads 59 embedding rows more, else the same dense weights.
  EXPECT_EQ(prefill.dense_bytes - decode.dense_bytes, 59 * 96 * 2);
  EXPECT_GT(decode.dense_bytes, 130 * 96 * 2);
}

}  // namespace
}  // namespace moesaic
