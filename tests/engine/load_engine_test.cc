#include "engine/load_engine.h"

#include <gtest/gtest.h>

namespace moesaic {
namespace {

TEST(LoadEngineTest, OptionsHoldForModelAndEngine) {
  ThreadPool pool(2);
  MetricsRegistry metrics;
  const auto engine = LoadEngine(
      {.path = MOESAIC_SOURCE_DIR "/models/wordnet-moe", .dtype = DTypeChoice::kFloat32},
      {.max_batch_tokens = 64, .max_logits_rows = 8, .max_sequences = 4, .max_model_len = 100},
      DetectIsa(), pool, metrics);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->model().dtype(), DType::kFloat32);
  EXPECT_EQ((*engine)->model().config().num_experts, 16);
  EXPECT_EQ((*engine)->max_model_len(), 100);
  EXPECT_GT((*engine)->load().kv_blocks_total, 0);
}

TEST(LoadEngineTest, AMissingFolderIsTheModelsError) {
  ThreadPool pool(1);
  MetricsRegistry metrics;
  const auto engine = LoadEngine({.path = "/nowhere"}, {}, DetectIsa(), pool, metrics);
  ASSERT_FALSE(engine.ok());
  EXPECT_NE(std::string(engine.status().message()).find("/nowhere"), std::string::npos);
}

}  // namespace
}  // namespace moesaic
