#include "memory/model_fingerprint.h"

#include <chrono>

#include <gtest/gtest.h>

#include "tests/checkpoint/test_files.h"

namespace moesaic {
namespace {

constexpr char kHeader[] = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";

Fingerprint Of(const TempFolder& folder) {
  const auto checkpoint = Checkpoint::Open(folder.path());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto fingerprint = CheckpointFingerprint(folder.path(), **checkpoint);
  EXPECT_TRUE(fingerprint.ok()) << fingerprint.status();
  return *fingerprint;
}

TEST(ModelFingerprintTest, EachPartOfACheckpointCounts) {
  const TempFolder folder;
  folder.Write("config.json", "{}");
  const auto weights = folder.Write("model.safetensors", SafetensorsBytes(kHeader, "1234"));
  const auto time = std::filesystem::last_write_time(weights);
  const Fingerprint first = Of(folder);
  EXPECT_EQ(first, Of(folder));
  EXPECT_EQ(first.Hex().size(), 32u);

  std::filesystem::last_write_time(weights, time + std::chrono::microseconds(1));
  EXPECT_NE(Of(folder), first);
  // The data is not read: only its time says that it changed.
  folder.Write("model.safetensors", SafetensorsBytes(kHeader, "5678"));
  std::filesystem::last_write_time(weights, time);
  EXPECT_EQ(Of(folder), first);
  std::string other(kHeader);
  other[2] = 'b';
  folder.Write("model.safetensors", SafetensorsBytes(other, "1234"));
  std::filesystem::last_write_time(weights, time);
  EXPECT_NE(Of(folder), first);
  folder.Write("model.safetensors", SafetensorsBytes(kHeader, "1234"));
  std::filesystem::last_write_time(weights, time);
  EXPECT_EQ(Of(folder), first);
  folder.Write("config.json", "{ }");
  EXPECT_NE(Of(folder), first);
}

TEST(ModelFingerprintTest, GeneratedWeightsDependOnConfigAndSeed) {
  const TempFolder folder;
  EXPECT_FALSE(GeneratedFingerprint(folder.path(), 1).ok());
  folder.Write("config.json", "{}");
  const auto first = GeneratedFingerprint(folder.path(), 1);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(*first, *GeneratedFingerprint(folder.path(), 1));
  EXPECT_NE(*first, *GeneratedFingerprint(folder.path(), 2));
  folder.Write("config.json", "{ }");
  EXPECT_NE(*first, *GeneratedFingerprint(folder.path(), 1));
}

}  // namespace
}  // namespace moesaic
