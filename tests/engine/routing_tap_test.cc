#include "engine/routing_tap.h"

#include <cstring>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/checkpoint/test_files.h"
#include "tests/core/routing_trace_files.h"
#include "tests/model/dummy_networks.h"
#include "tests/model/model_runner.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

constexpr int32_t kPrompts[] = {9, 23};

class RoutingTapTest : public testing::Test {
 protected:
  RoutingTapTest() {
    UseNetwork(0);
    options_.model.path = folder_.path();
    options_.model.load_format = LoadFormat::kDummy;
    options_.model.max_batch_tokens = 64;
    options_.kv_blocks = 16;
  }

  void UseNetwork(int index) { folder_.Write("config.json", Networks()[index].config.dump()); }
  std::filesystem::path Trace(const char* name) const { return folder_.path() / name; }

  std::unique_ptr<ModelRunner> Load() {
    auto runner = ModelRunner::Load(options_);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *std::move(runner);
  }

  // Two requests, a step for each prompt and `decode_steps` for both; the logits of all.
  static std::vector<float> Play(ModelRunner& runner, RoutingTap* tap, int32_t decode_steps) {
    Model& model = runner.model();
    model.SetRoutingHook(tap);
    std::vector<int32_t> blocks(16);
    std::iota(blocks.rbegin(), blocks.rend(), 0);
    int32_t context[2] = {0, 0};
    std::vector<float> logits;
    const auto step = [&](const std::vector<std::pair<int32_t, int32_t>>& parts) {
      Batch batch;
      for (const auto& [request, rows] : parts) {
        batch.sequences.push_back({.first_row = batch.num_rows(),
                                   .num_rows = rows,
                                   .context_tokens = context[request],
                                   .request = request,
                                   .block_table = std::span(blocks).subspan(8 * request, 8)});
        for (int32_t i = 0; i < rows; ++i) {
          batch.logits_rows.push_back(batch.num_rows());
          batch.positions.push_back(context[request]++);
          batch.tokens.push_back((7 * batch.positions.back() + request) % 130);
        }
      }
      model.BeginStep(batch, runner.kv());
      if (tap != nullptr) tap->BeginStep(batch);
      for (size_t block = 0; block < model.blocks().size(); ++block) {
        ASSERT_TRUE(model.RunBlock(static_cast<int32_t>(block)).ok());
      }
      EXPECT_TRUE(model.failures().empty());
      logits.insert(logits.end(), model.logits().begin(), model.logits().end());
    };
    step({{0, kPrompts[0]}});
    step({{0, 1}, {1, kPrompts[1]}});
    for (int32_t i = 0; i < decode_steps; ++i) step({{0, 1}, {1, 1}});
    model.SetRoutingHook(nullptr);
    return logits;
  }

  std::vector<float> PlayWith(const RoutingTapOptions& options, int32_t decode_steps) {
    const auto runner = Load();
    auto tap = RoutingTap::Create(options, runner->model());
    EXPECT_TRUE(tap.ok()) << tap.status();
    return tap.ok() ? Play(*runner, tap->get(), decode_steps) : std::vector<float>();
  }

  absl::Status ReplayStatus(const std::filesystem::path& path) {
    const auto runner = Load();
    return RoutingTap::Create({.replay = path}, runner->model()).status();
  }

  // The experts of each row: [layer][request][position].
  using Rows = std::vector<std::vector<std::vector<std::vector<uint16_t>>>>;
  static Rows RowsOf(const std::filesystem::path& path) {
    const auto trace = ReadRoutingTrace(path);
    EXPECT_TRUE(trace.ok()) << trace.status();
    Rows rows(trace->header.num_layers,
              std::vector<std::vector<std::vector<uint16_t>>>(trace->requests.size()));
    for (const RoutingTrace::Record& record : trace->records) {
      auto experts = trace->Experts(record);
      for (const RoutingRun& run : trace->Runs(record)) {
        for (int32_t i = 0; i < run.num_rows; ++i) {
          const auto row = experts.first(trace->header.top_k);
          experts = experts.subspan(row.size());
          EXPECT_EQ(rows[record.layer][run.request].size(),
                    static_cast<size_t>(run.first_position + i));
          rows[record.layer][run.request].emplace_back(row.begin(), row.end());
        }
      }
    }
    return rows;
  }

  const TempFolder folder_;
  ModelRunner::Options options_;
};

TEST_F(RoutingTapTest, RecordingChangesNothingAndHoldsEveryRow) {
  const auto plain = Load();
  EXPECT_EQ(PlayWith({.record = Trace("a")}, 5), Play(*plain, nullptr, 5));
  const Rows rows = RowsOf(Trace("a"));
  ASSERT_EQ(rows.size(), 3u);
  for (const auto& requests : rows) {
    ASSERT_EQ(requests.size(), 2u);
    EXPECT_EQ(requests[0].size(), 9u + 1 + 5);
    EXPECT_EQ(requests[1].size(), 23u + 5);
  }
  EXPECT_EQ(ReadRoutingTrace(Trace("a"))->header.model, "Qwen3MoeForCausalLM");
}

TEST_F(RoutingTapTest, AReplayMakesAnotherModelChooseTheSameAndGoesRoundAtTheEnd) {
  PlayWith({.record = Trace("a")}, 3);
  options_.model.dummy_seed = 9;
  PlayWith({.record = Trace("own")}, 40);
  PlayWith({.record = Trace("b"), .replay = Trace("a")}, 40);
  const Rows recorded = RowsOf(Trace("a"));
  const Rows replayed = RowsOf(Trace("b"));
  EXPECT_NE(replayed, RowsOf(Trace("own")));
  for (size_t layer = 0; layer < 3; ++layer) {
    for (size_t request = 0; request < 2; ++request) {
      const auto& from = recorded[layer][request];
      for (size_t p = 0; p < replayed[layer][request].size(); ++p) {
        EXPECT_EQ(replayed[layer][request][p], from[p % from.size()]);
      }
    }
  }
}

TEST_F(RoutingTapTest, TheOracleMovesBytesAheadAndChangesNothing) {
  PlayWith({.record = Trace("a")}, 20);
  const std::vector<float> expected = PlayWith({.replay = Trace("a")}, 20);
  options_.model.pack_dir = folder_.path() / "packs";
  options_.model.expert_memory = int64_t{1} << 30;
  const int64_t total = Load()->model().expert_memory()->metrics().budget_bytes;
  options_.model.expert_memory = total / 2;
  for (const int32_t layers : {0, 1, 2, 5}) {
    const auto runner = Load();
    auto tap = RoutingTap::Create({.replay = Trace("a"), .oracle_layers = layers}, runner->model());
    ASSERT_TRUE(tap.ok()) << tap.status();
    const std::vector<float> logits = Play(*runner, tap->get(), 20);
    ASSERT_EQ(logits.size(), expected.size());
    EXPECT_EQ(std::memcmp(logits.data(), expected.data(), logits.size() * sizeof(float)), 0);
    runner->model().expert_memory()->WaitIdle();
    const ExpertMemoryMetrics metrics = runner->model().expert_memory()->metrics();
    const int64_t asked_ahead =
        metrics.prefetched_bytes + metrics.late + metrics.cancelled_prefetches;
    EXPECT_EQ(asked_ahead > 0, layers > 0) << layers << " layers";
    EXPECT_LE(metrics.high_water_bytes, total / 2);
  }
}

TEST_F(RoutingTapTest, ATraceOfAnotherShapeIsRefused) {
  PlayWith({.record = Trace("a")}, 1);
  UseNetwork(3);  // as many experts, but top-4
  const absl::Status status = ReplayStatus(Trace("a"));
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("3 layers of 8 experts, top-3; the model"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(Trace("a").string()));
}

TEST_F(RoutingTapTest, ADamagedTraceIsRefused) {
  PlayWith({.record = Trace("a")}, 1);
  const std::string whole = FileBytes(Trace("a"));
  for (const size_t size : {whole.size() - 1, whole.size() / 2, size_t{5}, size_t{0}}) {
    folder_.Write("cut", whole.substr(0, size));
    const absl::Status status = ReplayStatus(Trace("cut"));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("cut"));
  }
  folder_.Write("garbage", std::string(1000, 'x'));
  EXPECT_TRUE(absl::IsInvalidArgument(ReplayStatus(Trace("garbage"))));
  EXPECT_FALSE(ReplayStatus(Trace("absent")).ok());
}

TEST_F(RoutingTapTest, ATraceWithGapsIsRefused) {
  const auto write = [&](int32_t first_position, int32_t layers) {
    auto writer = RoutingTraceWriter::Create(
        Trace("gap"), {.num_layers = 3, .num_experts = 8, .top_k = 3, .has_weights = false});
    ASSERT_TRUE(writer.ok()) << writer.status();
    const std::vector<RoutingRun> runs = {{5, first_position, 1}};
    for (int32_t layer = 0; layer < layers; ++layer) {
      ASSERT_TRUE((*writer)->Append(0, layer, runs, std::vector<int32_t>{0, 4, 7}, {}).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
  };
  write(2, 3);
  EXPECT_THAT(std::string(ReplayStatus(Trace("gap")).message()),
              HasSubstr("request 5 has position 2 of layer 0 after 0"));
  write(0, 2);
  EXPECT_THAT(std::string(ReplayStatus(Trace("gap")).message()), HasSubstr("no rows of layer 2"));
  write(0, 0);
  EXPECT_THAT(std::string(ReplayStatus(Trace("gap")).message()), HasSubstr("no request"));
  write(0, 3);
  EXPECT_TRUE(ReplayStatus(Trace("gap")).ok());
}

TEST_F(RoutingTapTest, AFileThatCannotBeMadeIsNamed) {
  const auto runner = Load();
  const absl::Status status =
      RoutingTap::Create({.record = "/no-such-folder/trace"}, runner->model()).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no-such-folder/trace"));
}

}  // namespace
}  // namespace moesaic
