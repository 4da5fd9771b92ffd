#include "engine/engine_options.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/batch.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

constexpr KvShape kShape = {.num_layers = 2, .num_kv_heads = 2, .head_dim = 4};

ModelConfig Config(int32_t max_positions, int32_t window = 0) {
  ModelConfig config;
  config.max_positions = max_positions;
  config.sliding_window = {window, window};
  return config;
}

int32_t LengthFor(const EngineOptions& options, const ModelConfig& config) {
  const auto resolved = ResolveEngineOptions(options, config, kShape);
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  const auto again = ResolveEngineOptions(*resolved, config, kShape);
  EXPECT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->max_model_len, resolved->max_model_len);
  EXPECT_EQ(again->kv_memory_bytes, resolved->kv_memory_bytes);
  return resolved->max_model_len;
}

TEST(EngineOptionsTest, AutoIsTheModelsLengthAndRoomForIt) {
  const auto resolved = ResolveEngineOptions({.max_sequences = 3}, Config(100), kShape);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->max_model_len, 100);
  EXPECT_EQ(resolved->kv_memory_bytes, 3 * 7 * kShape.BlockBytes());
}

TEST(EngineOptionsTest, NoLongerThanTheKvCacheHolds) {
  const int64_t kv = 4 * kShape.BlockBytes();
  // 4 blocks hold 64 tokens, and the last token's KV is never needed.
  EXPECT_EQ(LengthFor({.kv_memory_bytes = kv}, Config(1000)), 65);
  EXPECT_EQ(LengthFor({.max_model_len = 500, .kv_memory_bytes = kv}, Config(1000)), 65);
  EXPECT_EQ(LengthFor({.max_model_len = 65, .kv_memory_bytes = kv}, Config(1000)), 65);
  EXPECT_EQ(LengthFor({.max_model_len = 64, .kv_memory_bytes = kv}, Config(1000)), 64);
}

TEST(EngineOptionsTest, ASlidingWindowNeedsNoMoreThanItself) {
  const int64_t kv = 4 * kShape.BlockBytes();
  EXPECT_EQ(LengthFor({.kv_memory_bytes = kv}, Config(1000, 32)), 1000);
  EXPECT_EQ(LengthFor({.kv_memory_bytes = kv}, Config(1000, 33)), 65);
}

TEST(EngineOptionsTest, LessThanABlockIsRefusedNamingTheFlag) {
  const auto resolved =
      ResolveEngineOptions({.kv_memory_bytes = kShape.BlockBytes() - 1}, Config(100), kShape);
  EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(resolved.status().message()), HasSubstr("--kv-memory"));
}

TEST(EngineOptionsTest, LargestSlidingWindow) {
  ModelConfig config = Config(1000);
  config.sliding_window = {8, 40};
  EXPECT_EQ(LargestSlidingWindow(config, 1000), 40);
  EXPECT_EQ(LargestSlidingWindow(config, 40), 0);
  config.sliding_window = {8, 0};
  EXPECT_EQ(LargestSlidingWindow(config, 1000), 0);
}

}  // namespace
}  // namespace moesaic
