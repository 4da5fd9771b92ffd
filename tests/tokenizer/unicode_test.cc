#include "tokenizer/unicode.h"

#include <gtest/gtest.h>

#include <string>

#include "tokenizer/unicode_tables.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

std::string Normalized(NormalForm form, std::string text) {
  NormalizeText(form, &text);
  return text;
}

TEST(UnicodeTest, NormalForms) {
  EXPECT_EQ(Normalized(NormalForm::kNfc, "e\u0301 \u1100\u1161\u11A8 \u212B"), "é 각 Å");
  EXPECT_EQ(Normalized(NormalForm::kNfd, "é 각"), "e\u0301 \u1100\u1161\u11A8");
  EXPECT_EQ(Normalized(NormalForm::kNfkc, "ﬁ Ⅷ ²"), "fi VIII 2");
  EXPECT_EQ(Normalized(NormalForm::kNfkd, "ﬁé"), "fie\u0301");
  EXPECT_EQ(Normalized(NormalForm::kNfc, "\u0958"), "\u0915\u093C");  // excluded from composition
  EXPECT_EQ(Normalized(NormalForm::kNfc, ""), "");
}

TEST(UnicodeTest, CombiningMarksAreOrderedAndComposed) {
  EXPECT_EQ(Normalized(NormalForm::kNfc, "o\u0302\u0323"), "ộ");
  EXPECT_EQ(Normalized(NormalForm::kNfd, "a\u0301\u0316\u0334"), "a\u0334\u0316\u0301");
  // The order within one class stays.
  EXPECT_EQ(Normalized(NormalForm::kNfd, "a\u0308\u0301"), "a\u0308\u0301");
}

TEST(UnicodeTest, AMillionCombiningMarksAreSorted) {
  std::string text = "a";
  for (int i = 0; i < 250'000; ++i) text += "\u0301\u0316\u0327\u0334";
  NormalizeText(NormalForm::kNfd, &text);
  size_t pos = 1;
  EXPECT_EQ(NextCodePoint(text, &pos), 0x334u);
  EXPECT_EQ(LastCodePoint(text, text.size()), 0x301u);
  EXPECT_EQ(text.size(), 2'000'001u);
}

// To the reference these have no normal form and no combining class.
TEST(UnicodeTest, MarksNewerThanTheReferencesTablesStayWhereTheyAre) {
  EXPECT_EQ(Normalized(NormalForm::kNfd, "a\u0301\u0898\u0334"), "a\u0301\u0898\u0334");
  EXPECT_EQ(Normalized(NormalForm::kNfkc, "\u32FF"), "\u32FF");
  EXPECT_FALSE(IsMark(0x898));
  EXPECT_TRUE(IsMark(0x301));
}

TEST(UnicodeTest, LowerCaseIsByCharacter) {
  std::string text = "ÀΣ ΟΔΟΣ İ ẞ \uA7CB\u1C89";
  LowercaseText(&text);
  EXPECT_EQ(text, "àσ οδοσ i\u0307 ß \u0264\u1C8A");
}

TEST(UnicodeTest, Classes) {
  for (const char32_t c : {0x20, 0x09, 0x85, 0xA0, 0x2028, 0x3000}) EXPECT_TRUE(IsWhiteSpace(c));
  for (const char32_t c : {0x180E, 0x200B, 0xFEFF, 0x41}) EXPECT_FALSE(IsWhiteSpace(c));
  for (const char32_t c : {0x24, 0x21, 0x7E, 0x3002, 0xBF}) EXPECT_TRUE(IsPunctuation(c));
  for (const char32_t c : {0x20AC, 0x61, 0x20}) EXPECT_FALSE(IsPunctuation(c));
  for (const char32_t c : {0x31, 0xBD, 0x2167, 0x661}) EXPECT_TRUE(IsNumeric(c));
  for (const char32_t c : {0x61, 0x301, 0x5F, 0x4E00, 0x200D, 0x24B6}) {
    EXPECT_TRUE(IsWordCharacter(c));
  }
  for (const char32_t c : {0x2D, 0xB2, 0x20}) EXPECT_FALSE(IsWordCharacter(c));
  EXPECT_TRUE(IsWordCharacter(0x31350));  // Unicode 15
}

TEST(UnicodeTest, GraphemeClusters) {
  const std::string text = "e\u0301x\r\n\U0001F468\u200D\U0001F469!";
  std::vector<size_t> ends;
  for (size_t pos = 0; pos < text.size();) ends.push_back(pos = GraphemeEnd(text, pos));
  EXPECT_EQ(ends, (std::vector<size_t>{3, 4, 6, 17, 18}));
}

TEST(UnicodeTest, TablesAscend) {
  char32_t last = 0;
  for (const CategoryRange& range : CategoriesSinceUnicode14()) {
    EXPECT_GT(range.first, last);
    EXPECT_GE(range.last, range.first);
    last = range.last;
  }
  last = 0;
  for (const CodePointRange& range : WithoutNormalForms()) {
    EXPECT_GT(range.first, last);
    EXPECT_GE(range.last, range.first);
    last = range.last;
  }
}

}  // namespace
}  // namespace moesaic
