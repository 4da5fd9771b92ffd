#include "server/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace moesaic {
namespace {

std::string PushAll(StopMatcher& matcher, const std::vector<std::string>& pieces) {
  std::string out;
  for (const std::string& piece : pieces) out += matcher.Push(piece);
  if (!matcher.matched()) out += matcher.Flush();
  return out;
}

TEST(StopMatcherTest, PassesTextThroughWithoutStops) {
  StopMatcher matcher({}, false);
  EXPECT_EQ(matcher.Push("hello"), "hello");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopMatcherTest, FindsAStopAcrossPieces) {
  StopMatcher matcher({"\n\nEND"}, false);
  EXPECT_EQ(matcher.Push("text\n"), "text");
  EXPECT_EQ(matcher.Push("\nEN"), "");
  EXPECT_EQ(matcher.Push("D and more"), "");
  ASSERT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.matched_stop(), "\n\nEND");
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, IncludesTheStopOnRequest) {
  StopMatcher matcher({"."}, true);
  EXPECT_EQ(matcher.Push("One. Two."), "One.");
}

TEST(StopMatcherTest, ReleasesWhatTurnsOutToBeNoStop) {
  StopMatcher matcher({"abcd"}, false);
  EXPECT_EQ(matcher.Push("xabc"), "x");
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Flush(), "abc");
}

TEST(StopMatcherTest, HoldsBackOverlappingBeginnings) {
  StopMatcher matcher({"aab"}, false);
  EXPECT_EQ(matcher.Push("aaa"), "a");
  EXPECT_EQ(matcher.Push("b"), "");
  EXPECT_TRUE(matcher.matched());
}

TEST(StopMatcherTest, TheFirstCompletedStopWinsAndOfTiesTheLongest) {
  StopMatcher first({"abcdef", "cd"}, false);
  EXPECT_EQ(first.Push("abcdef"), "ab");
  EXPECT_EQ(first.matched_stop(), "cd");
  StopMatcher longest({"cd", "bcd"}, false);
  EXPECT_EQ(longest.Push("abcd"), "a");
  EXPECT_EQ(longest.matched_stop(), "bcd");
}

// However the text is cut, output and match are those of one piece, which a plain search confirms.
TEST(StopMatcherTest, DoesNotDependOnTheCuts) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    const auto text_of = [&](size_t length) {
      std::string text;
      while (text.size() < length) text += static_cast<char>('a' + random() % 2);
      return text;
    };
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + random() % 3; ++i) stops.push_back(text_of(1 + random() % 7));
    const std::string text = text_of(random() % 60);
    size_t end = std::string::npos, start = 0;
    for (const std::string& stop : stops) {
      const size_t found = text.find(stop);
      if (found == std::string::npos) continue;
      if (found + stop.size() < end || (found + stop.size() == end && found < start)) {
        end = found + stop.size();
        start = found;
      }
    }
    std::vector<std::string> pieces;
    for (size_t pos = 0; pos < text.size();) {
      const size_t length = 1 + random() % 9;
      pieces.push_back(text.substr(pos, length));
      pos += length;
    }
    StopMatcher matcher(stops, false);
    EXPECT_EQ(PushAll(matcher, pieces), end == std::string::npos ? text : text.substr(0, start));
    EXPECT_EQ(matcher.matched(), end != std::string::npos);
  }
}

}  // namespace
}  // namespace moesaic
