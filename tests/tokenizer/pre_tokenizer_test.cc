#include "tokenizer/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Pieces(const char* json, std::string text, bool starts_request = true) {
  const auto pre_tokenizer = ParsePreTokenizer(Json::parse(json), "pre_tokenizer");
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  PreTokenizedText pieces;
  pieces.pieces = {{0, text.size()}};
  pieces.text = std::move(text);
  pieces.starts_request = starts_request;
  EXPECT_TRUE((*pre_tokenizer)->Apply(&pieces).ok());
  std::vector<std::string> strings;
  for (size_t i = 0; i < pieces.pieces.size(); ++i) strings.emplace_back(pieces.Piece(i));
  return strings;
}

TEST(PreTokenizerTest, ByteLevel) {
  EXPECT_THAT(Pieces(R"({"type": "ByteLevel", "add_prefix_space": false})", "It's  a 42é"),
              ElementsAre("It", "'s", "Ġ", "Ġa", "Ġ42", "Ã©"));
  EXPECT_THAT(Pieces(R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": false})", "a"),
              ElementsAre("Ġa"));
}

TEST(PreTokenizerTest, Metaspace) {
  EXPECT_THAT(Pieces(R"({"type": "Metaspace", "prepend_scheme": "always"})", "a b  c"),
              ElementsAre("▁a", "▁b", "▁", "▁c"));
  const char* first = R"({"type": "Metaspace", "prepend_scheme": "first", "split": false})";
  EXPECT_THAT(Pieces(first, "a b"), ElementsAre("▁a▁b"));
  EXPECT_THAT(Pieces(first, " a"), ElementsAre("▁a"));
  EXPECT_THAT(Pieces(first, "a b", /*starts_request=*/false), ElementsAre("a▁b"));
  EXPECT_THAT(Pieces(R"({"type": "Metaspace", "add_prefix_space": false})", "a"), ElementsAre("a"));
}

TEST(PreTokenizerTest, Characters) {
  EXPECT_THAT(Pieces(R"({"type": "Digits", "individual_digits": true})", "a12"),
              ElementsAre("a", "1", "2"));
  EXPECT_THAT(Pieces(R"({"type": "Digits"})", "a12b"), ElementsAre("a", "12", "b"));
  EXPECT_THAT(Pieces(R"({"type": "Punctuation"})", "a.,b"), ElementsAre("a", ".", ",", "b"));
  EXPECT_THAT(Pieces(R"({"type": "WhitespaceSplit"})", " a  b!\n"), ElementsAre("a", "b!"));
  EXPECT_THAT(Pieces(R"({"type": "Whitespace"})", " a_1  b!?\n"), ElementsAre("a_1", "b", "!?"));
  EXPECT_THAT(Pieces(R"({"type": "WhitespaceSplit"})", " \n"), IsEmpty());
}

TEST(PreTokenizerTest, SplitAndSequence) {
  EXPECT_THAT(Pieces(R"({"type": "Sequence", "pretokenizers": [
                         {"type": "Split", "pattern": {"Regex": "\\d"}, "behavior": "Removed"},
                         {"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithNext",
                          "invert": false}]})",
                     "a-b1c-d"),
              ElementsAre("a", "-b", "c", "-d"));
  EXPECT_THAT(Pieces("null", "a b"), ElementsAre("a b"));
}

TEST(PreTokenizerTest, NamesTheFieldItCannotUse) {
  for (const char* json :
       {R"({"type": "Sequence", "pretokenizers": [{"type": "Nonsense"}]})",
        R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "behavior": "Removed"}]})",
        R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "behavior": "Gone",
            "pattern": {"String": "a"}}]})",
        R"({"type": "Sequence", "pretokenizers": [{"type": "Metaspace",
            "prepend_scheme": "sometimes"}]})",
        R"({"type": "Sequence", "pretokenizers": [3]})"}) {
    const auto pre_tokenizer = ParsePreTokenizer(Json::parse(json), "pre_tokenizer");
    ASSERT_FALSE(pre_tokenizer.ok()) << json;
    EXPECT_NE(std::string(pre_tokenizer.status().message()).find("pretokenizers[0]"),
              std::string::npos)
        << pre_tokenizer.status();
  }
}

}  // namespace
}  // namespace moesaic
