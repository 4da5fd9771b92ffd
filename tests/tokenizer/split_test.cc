#include "tokenizer/split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace moesaic {
namespace {

using testing::ElementsAre;

std::vector<std::string> Split(std::string_view text, SplitBehavior behavior, bool invert = false) {
  std::vector<Span> pieces;
  const auto delimiters = FindCharacters(text, [](char32_t c) { return c == '-'; });
  SplitAt(text, delimiters, behavior, invert, 100, &pieces);
  std::vector<std::string> strings;
  for (const Span& piece : pieces) {
    strings.emplace_back(text.substr(piece.begin - 100, piece.end - piece.begin));
  }
  return strings;
}

TEST(SplitTest, Behaviors) {
  const std::string text = "the-final--cut";
  EXPECT_THAT(Split(text, SplitBehavior::kRemoved), ElementsAre("the", "final", "cut"));
  EXPECT_THAT(Split(text, SplitBehavior::kIsolated),
              ElementsAre("the", "-", "final", "-", "-", "cut"));
  EXPECT_THAT(Split(text, SplitBehavior::kMergedWithPrevious),
              ElementsAre("the-", "final-", "-", "cut"));
  EXPECT_THAT(Split(text, SplitBehavior::kMergedWithNext),
              ElementsAre("the", "-final", "-", "-cut"));
  EXPECT_THAT(Split(text, SplitBehavior::kContiguous),
              ElementsAre("the", "-", "final", "--", "cut"));
  EXPECT_THAT(Split(text, SplitBehavior::kRemoved, /*invert=*/true), ElementsAre("-", "-", "-"));
}

TEST(SplitTest, FindString) {
  const auto found = FindString("aaa", "aa");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].begin, 0u);
  EXPECT_EQ(found[0].end, 2u);
}

}  // namespace
}  // namespace moesaic
