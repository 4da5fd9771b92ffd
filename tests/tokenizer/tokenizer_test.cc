#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace moesaic {
namespace {

class TokenizerLoadTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  absl::StatusCode Code() { return Tokenizer::Load(folder_).status().code(); }

  std::filesystem::path folder_;
};

const std::filesystem::path kTestdata = MOESAIC_SOURCE_DIR "/tests/tokenizer/testdata";

TEST_F(TokenizerLoadTest, AFolderWithoutTokenizer) {
  EXPECT_EQ(Code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Tokenizer::Load(folder_ / "none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(TokenizerLoadTest, TokenizerJsonComesFirst) {
  std::filesystem::copy(kTestdata / "llama_model" / "tokenizer.model", folder_);
  auto model = Tokenizer::Load(folder_);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE((*model)->TokenToId("<0x00>").has_value());
  std::filesystem::copy(kTestdata / "qwen" / "tokenizer.json", folder_);
  auto json = Tokenizer::Load(folder_);
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_TRUE((*json)->TokenToId("<|im_start|>").has_value());
}

TEST_F(TokenizerLoadTest, BrokenFiles) {
  Write("tokenizer.json", "{");
  EXPECT_EQ(Code(), absl::StatusCode::kInvalidArgument);
  std::filesystem::remove(folder_ / "tokenizer.json");
  std::filesystem::create_directory(folder_ / "tokenizer.json");
  EXPECT_EQ(Code(), absl::StatusCode::kInvalidArgument);
  std::filesystem::remove(folder_ / "tokenizer.json");
  Write("tokenizer.model", "no model");
  EXPECT_EQ(Code(), absl::StatusCode::kInvalidArgument);
  std::filesystem::remove(folder_ / "tokenizer.model");
  std::filesystem::copy(kTestdata / "llama_model" / "tokenizer.model", folder_);
  Write("tokenizer_config.json", "[");
  EXPECT_EQ(Code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace moesaic
