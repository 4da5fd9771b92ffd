#include "tokenizer/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace moesaic {
namespace {

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  const auto regex = Regex::Compile(pattern, "test");
  EXPECT_TRUE(regex.ok()) << regex.status();
  std::vector<Span> spans;
  EXPECT_TRUE((*regex)->FindAll(text, &spans).ok());
  std::vector<std::string> matches;
  for (const Span& span : spans) {
    matches.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  return matches;
}

using testing::ElementsAre;
using testing::IsEmpty;

TEST(RegexTest, DialectIsOnigurumas) {
  EXPECT_THAT(Matches(R"(\s)", "a\u00A0b\u180Ec\u0085"), ElementsAre("\u00A0", "\u0085"));
  EXPECT_THAT(Matches(R"([^\S\n]+)", "a \n\tb"), ElementsAre(" ", "\t"));
  EXPECT_THAT(Matches(R"(\w+)", "a\u0301_b-²½Ⓐ"), ElementsAre("a\u0301_b", "²½Ⓐ"));
  EXPECT_THAT(Matches(R"(\W+)", "a -b"), ElementsAre(" -"));
  EXPECT_THAT(Matches(R"(\h+)", "xBADz 12"), ElementsAre("BAD", "12"));
  EXPECT_THAT(Matches(R"(^.)", "ab\ncd"), ElementsAre("a", "c"));
  EXPECT_THAT(Matches(R"(\u0041|\x42|\x{43})", "ABCD"), ElementsAre("A", "B", "C"));
  EXPECT_THAT(Matches(R"((?i:'S)|\d{1,3})", "it'ſ 1234"), ElementsAre("'ſ", "123", "4"));
  EXPECT_THAT(Matches(R"(\p{L}+)", "a\U00031350b 1"), ElementsAre("a\U00031350b"));
  EXPECT_THAT(Matches(R"([^\p{L}]+)", "a\U00031350b 1"), ElementsAre(" 1"));
  EXPECT_THAT(Matches(R"(\P{L}+)", "a\U00031350b 1"), ElementsAre(" 1"));
}

TEST(RegexTest, EmptyMatchesAdvance) {
  EXPECT_THAT(Matches("x*", "axé"), ElementsAre("", "x", ""));
  EXPECT_THAT(Matches("x*", ""), IsEmpty());
}

TEST(RegexTest, RefusesWhatIsNotShared) {
  for (const char* pattern :
       {"[a[b]]", "[a&&b]", "(*UTF)a", "(?s)a",    "a{2}+", "a{2}?",           "a{,3}",
        R"(\R)",  R"(\Ka)", R"(\b)",   R"((a)\1)", R"(\C)", R"([\W])",         R"(\xE9)",
        "[]a]",   "(",      "a{",      "\\",       "[a",    R"(\p{Nonsense})", "\xFF"}) {
    const auto regex = Regex::Compile(pattern, "the field");
    ASSERT_FALSE(regex.ok()) << pattern;
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(regex.status().message()).rfind("the field", 0), 0u) << regex.status();
  }
}

TEST(RegexTest, BacktrackingEndsInAnError) {
  const auto regex = Regex::Compile("(a+)+$", "test");
  ASSERT_TRUE(regex.ok()) << regex.status();
  std::vector<Span> matches;
  const absl::Status status = (*regex)->FindAll(std::string(64, 'a') + "b", &matches);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST(RegexTest, DeepBacktrackingGetsAStackOfItsOwn) {
  const auto regex = Regex::Compile("(?:a|b)*c", "test");
  ASSERT_TRUE(regex.ok()) << regex.status();
  std::vector<Span> matches;
  ASSERT_TRUE((*regex)->FindAll(std::string(50'000, 'a') + "c", &matches).ok());
  ASSERT_EQ(matches.size(), 1u);
  EXPECT_EQ(matches[0].end, 50'001u);
}

}  // namespace
}  // namespace moesaic
