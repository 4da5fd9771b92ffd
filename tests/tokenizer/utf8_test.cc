#include "tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace moesaic {
namespace {

TEST(Utf8Test, EveryCharacterSurvivesEncodingAndDecoding) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text = "x";
    AppendUtf8(c, &text);
    size_t pos = 1;
    ASSERT_EQ(NextCodePoint(text, &pos), c);
    ASSERT_EQ(pos, text.size());
    ASSERT_EQ(LastCodePoint(text, text.size()), c);
    ASSERT_FALSE(FindInvalidUtf8(text).has_value());
  }
}

TEST(Utf8Test, FindsTheFirstInvalidByte) {
  struct Case {
    std::string text;
    size_t offset;
  };
  const std::vector<Case> cases = {
      {"\x80", 0},                // a continuation byte alone
      {"abcdefghijkl\xFFz", 12},  // behind whole words of ASCII
      {"a\xC0\x80", 1},           // overlong
      {"\xE0\x9F\xBF", 0},        // overlong
      {"\xED\xA0\x80", 0},        // a surrogate
      {"\xF4\x90\x80\x80", 0},    // above U+10FFFF
      {"\xF0\x9F\x91", 0},        // cut off
      {"\xC3\xA9\xE2\x82", 2},    // cut off
      {"\xE2\x82"
       "a",
       0},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(FindInvalidUtf8(c.text), c.offset) << testing::PrintToString(c.text);
  }
  EXPECT_EQ(FindInvalidUtf8(std::string("a\0b", 3)), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8(""), std::nullopt);
}

TEST(Utf8Test, ScanTellsIncompleteFromInvalid) {
  EXPECT_EQ(ScanUtf8("\xF0\x9F").kind, Utf8Prefix::kIncomplete);
  EXPECT_EQ(ScanUtf8("\xF0\x9F").length, 2u);
  EXPECT_EQ(ScanUtf8("\xF0\x9F\x41").kind, Utf8Prefix::kInvalid);
  EXPECT_EQ(ScanUtf8("\xF0\x9F\x41").length, 2u);
  EXPECT_EQ(ScanUtf8("\xF0\x80").kind, Utf8Prefix::kInvalid);
  EXPECT_EQ(ScanUtf8("\xF0\x80").length, 1u);
  EXPECT_EQ(ScanUtf8("\xC3\xA9z").kind, Utf8Prefix::kCharacter);
  EXPECT_EQ(ScanUtf8("\xC3\xA9z").length, 2u);
}

}  // namespace
}  // namespace moesaic
