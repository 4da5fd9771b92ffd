#include "tokenizer/vocabulary.h"

#include <gtest/gtest.h>

namespace moesaic {
namespace {

TEST(VocabularyTest, LooksUpBothWaysAndToleratesGaps) {
  Vocabulary vocabulary;
  ASSERT_TRUE(vocabulary.Add("a", 0).ok());
  ASSERT_TRUE(vocabulary.Add("b", 5).ok());
  EXPECT_EQ(vocabulary.size(), 6);
  EXPECT_EQ(vocabulary.Find("b"), 5);
  EXPECT_EQ(vocabulary.Find("c"), std::nullopt);
  EXPECT_EQ(vocabulary.TokenOf(5), "b");
  EXPECT_TRUE(vocabulary.Contains(0));
  for (const int32_t id : {-1, 3, 6}) {
    EXPECT_FALSE(vocabulary.Contains(id));
    EXPECT_EQ(vocabulary.TokenOf(id), "");
  }
}

TEST(VocabularyTest, RefusesIdsThatWouldExhaustMemory) {
  Vocabulary vocabulary;
  EXPECT_EQ(vocabulary.Add("a", -1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(vocabulary.Add("a", int64_t{1} << 40).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(vocabulary.size(), 0);
}

TEST(VocabularyTest, ByteTokens) {
  Vocabulary vocabulary;
  ASSERT_TRUE(vocabulary.Add("<0x0A>", 3).ok());
  EXPECT_EQ(vocabulary.ByteTokens()[0x0A], 3);
  EXPECT_EQ(vocabulary.ByteTokens()[0x0B], -1);
  EXPECT_EQ(ByteOfToken("<0x0A>"), 0x0A);
  EXPECT_EQ(ByteOfToken("<0xff>"), 0xFF);
  for (const char* token : {"<0x0G>", "<0x0A", "<0x00A>", "0x0A", ""}) {
    EXPECT_EQ(ByteOfToken(token), std::nullopt) << token;
  }
}

}  // namespace
}  // namespace moesaic
