#include "model/rope_table.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/thread_pool.h"

namespace moesaic {
namespace {

TEST(RopeTableTest, HoldsScaledCosinesAndSinesOfEveryPosition) {
  ThreadPool pool(2);
  ModelConfig config;
  config.rope_inverse_frequencies = {1.0f, 0.1f, 0.001f};
  config.rope_attention_factor = 1.5f;
  constexpr int32_t kPositions = 5000;
  const absl::StatusOr<RopeTable> table = RopeTable::Create(config, kPositions, {.pool = &pool});
  ASSERT_TRUE(table.ok()) << table.status();
  for (const int32_t position : {0, 1, 17, 1023, 1024, 4999}) {
    for (int i = 0; i < 3; ++i) {
      // The angle itself is rounded to float32.
      const double angle = static_cast<float>(position) * config.rope_inverse_frequencies[i];
      EXPECT_NEAR(table->cosines()[position * 3 + i], 1.5 * std::cos(angle), 1e-6) << position;
      EXPECT_NEAR(table->sines()[position * 3 + i], 1.5 * std::sin(angle), 1e-6) << position;
    }
  }
}

TEST(RopeTableTest, MorePositionsThanMemoryIsRefused) {
  ThreadPool pool(1);
  ModelConfig config;
  config.rope_inverse_frequencies.resize(1 << 18);
  const absl::Status status = RopeTable::Create(config, 1 << 24, {.pool = &pool}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

}  // namespace
}  // namespace moesaic
