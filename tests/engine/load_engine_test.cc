#include "engine/load_engine.h"

#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "tests/checkpoint/test_files.h"

namespace moesaic {
namespace {

TEST(LoadEngineTest, OptionsHoldForModelAndEngine) {
  ThreadPool pool(2);
  MetricsRegistry metrics;
  const auto engine = LoadEngine(
      {.path = MOESAIC_SOURCE_DIR "/models/wordnet-moe", .dtype = DTypeChoice::kFloat32}, {},
      {.max_batch_tokens = 64, .max_logits_rows = 8, .max_sequences = 4, .max_model_len = 100},
      DetectIsa(), pool, metrics);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->model().dtype(), DType::kFloat32);
  EXPECT_EQ((*engine)->model().config().num_experts, 16);
  EXPECT_EQ((*engine)->max_model_len(), 100);
  EXPECT_GT((*engine)->load().kv_blocks_total, 0);
}

TEST(LoadEngineTest, TheKvCacheBoundsTheLengthServed) {
  ThreadPool pool(2);
  MetricsRegistry metrics;
  testing::internal::CaptureStdout();
  const auto engine = LoadEngine({.path = MOESAIC_SOURCE_DIR "/models/wordnet-moe"}, {},
                                 {.kv_memory_bytes = 256 << 10}, DetectIsa(), pool, metrics);
  const std::string log = testing::internal::GetCapturedStdout();
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->max_model_len(), (*engine)->load().kv_blocks_total * 16 + 1);
  EXPECT_LT((*engine)->max_model_len(), (*engine)->model().config().max_positions);
  EXPECT_NE(log.find("--kv-memory"), std::string::npos) << log;
}

TEST(LoadEngineTest, ATooSmallKvCacheIsRefusedBeforeTheWeightsAreRead) {
  const TempFolder folder;
  std::filesystem::copy(MOESAIC_SOURCE_DIR "/models/wordnet-moe/config.json", folder.path());
  ThreadPool pool(1);
  MetricsRegistry metrics;
  const auto engine =
      LoadEngine({.path = folder.path()}, {}, {.kv_memory_bytes = 1}, DetectIsa(), pool, metrics);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument) << engine.status();
  EXPECT_NE(std::string(engine.status().message()).find("--kv-memory"), std::string::npos);
}

TEST(LoadEngineTest, ABudgetBelowAllExpertsServesFromAPack) {
  const TempFolder folder;
  ThreadPool pool(1);
  MetricsRegistry metrics;
  const auto engine =
      LoadEngine({.path = MOESAIC_SOURCE_DIR "/models/wordnet-moe"},
                 {.expert_memory = {.kind = ExpertBudget::Kind::kPercent, .percent = 25.0},
                  .pack_dir = folder.path()},
                 {.max_batch_tokens = 64, .max_sequences = 4}, DetectIsa(), pool, metrics);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_FALSE(std::filesystem::is_empty(folder.path()));
  EXPECT_NE(metrics.Render().find("moesaic_expert_lookups_total"), std::string::npos);
  EXPECT_NE(metrics.Render().find("moesaic_expert_copy_busy_seconds_total"), std::string::npos);
}

TEST(LoadEngineTest, ABudgetBelowTwoStripesIsRefusedNamingTheSmallest) {
  const TempFolder folder;
  ThreadPool pool(1);
  MetricsRegistry metrics;
  const auto engine =
      LoadEngine({.path = MOESAIC_SOURCE_DIR "/models/wordnet-moe"},
                 {.expert_memory = {.kind = ExpertBudget::Kind::kBytes, .bytes = 4096},
                  .pack_dir = folder.path()},
                 {}, DetectIsa(), pool, metrics);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(engine.status().message()).find("two stripes"), std::string::npos)
      << engine.status();
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(LoadEngineTest, AMissingFolderIsTheModelsError) {
  ThreadPool pool(1);
  MetricsRegistry metrics;
  const auto engine = LoadEngine({.path = "/nowhere"}, {}, {}, DetectIsa(), pool, metrics);
  ASSERT_FALSE(engine.ok());
  EXPECT_NE(std::string(engine.status().message()).find("/nowhere"), std::string::npos);
}

}  // namespace
}  // namespace moesaic
