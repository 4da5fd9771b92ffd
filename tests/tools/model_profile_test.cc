#include "tools/bench/model_profile.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic::bench {
namespace {

TEST(ModelProfileTest, EveryCommittedProfileReads) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(MOESAIC_SOURCE_DIR) +
                                                               "/benchmarks/models")) {
    const auto profile = ReadModelProfile(entry.path());
    EXPECT_TRUE(profile.ok()) << profile.status();
    ++count;
  }
  EXPECT_GE(count, 2);
}

TEST(ModelProfileTest, Qwen3HasItsKnownSizes) {
  const auto profile =
      ReadModelProfile(std::string(MOESAIC_SOURCE_DIR) + "/benchmarks/models/qwen3-30b-a3b.json");
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->expert_weights() * profile->bytes_per_weight, 9 << 20);
  EXPECT_EQ(profile->dense_weights(), 2 * 2048 * 36 * 128 + 2048 * 128);
}

TEST(ModelProfileTest, NamesTheFieldThatIsWrong) {
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / ("profile." + std::to_string(getpid()) + ".json");
  std::ofstream(path) << R"({"name": "x", "num_hidden_layers": 0})";
  const auto profile = ReadModelProfile(path);
  EXPECT_EQ(profile.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(profile.status().message()), testing::HasSubstr("num_hidden_layers"));
  std::filesystem::remove(path);
  EXPECT_EQ(ReadModelProfile(path).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace moesaic::bench
