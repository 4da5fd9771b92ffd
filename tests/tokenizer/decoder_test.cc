#include "tokenizer/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace moesaic {
namespace {

using testing::ElementsAre;

// What comes out after each token, and at the end.
std::vector<std::string> Stream(const char* json, const std::vector<std::string>& tokens) {
  const auto steps = ParseDecoder(Json::parse(json), "decoder");
  EXPECT_TRUE(steps.ok()) << steps.status();
  DecoderStream stream(*steps);
  std::vector<std::string> out;
  for (const std::string& token : tokens) stream.Push(token, &out.emplace_back());
  stream.Flush(&out.emplace_back());
  return out;
}

constexpr char kLlama[] = R"({"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";

TEST(DecoderTest, WithoutDecoderTokensAreJoined) {
  EXPECT_THAT(Stream("null", {"a", "b"}), ElementsAre("a", " b", ""));
}

TEST(DecoderTest, ByteLevelHoldsIncompleteCharactersBack) {
  const char* json = R"({"type": "ByteLevel"})";
  // 👍 is F0 9F 91 8D.
  EXPECT_THAT(Stream(json, {"aĠ", "ðŁ", "ĳ", "į", "b"}), ElementsAre("a ", "", "", "👍", "b", ""));
  EXPECT_THAT(Stream(json, {"ðŁ", "b"}), ElementsAre("", "\uFFFDb", ""));
  EXPECT_THAT(Stream(json, {"ðŁ"}), ElementsAre("", "\uFFFD"));
  EXPECT_THAT(Stream(json, {"Ł", "Ł"}), ElementsAre("\uFFFD", "\uFFFD", ""));
  EXPECT_THAT(Stream(json, {"字a"}), ElementsAre("字a", ""));  // an added token: text already
}

TEST(DecoderTest, ByteFallback) {
  EXPECT_THAT(Stream(kLlama, {"▁a", "<0xE5>", "<0xAD>", "<0x97>", "▁b"}),
              ElementsAre("a", "", "", "字", " b", ""));
  // One replacement for each byte that is part of no character.
  EXPECT_THAT(Stream(kLlama, {"<0xE5>", "<0xAD>", "b"}), ElementsAre("", "", "\uFFFD\uFFFDb", ""));
  EXPECT_THAT(Stream(kLlama, {"<0xFF>", "<0x41>", "<0xE5>"}),
              ElementsAre("\uFFFD", "A", "", "\uFFFD"));
}

TEST(DecoderTest, StripTakesTheFirstSpaceOfAll) {
  EXPECT_THAT(Stream(kLlama, {"▁", "▁▁a", "▁b"}), ElementsAre("", "  a", " b", ""));
  EXPECT_THAT(Stream(kLlama, {"<0x20>", "a"}), ElementsAre("", "a", ""));
}

TEST(DecoderTest, StripHoldsBackWhatMayBeTheEnd) {
  EXPECT_THAT(Stream(R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                         {"type": "Strip", "content": "-", "start": 0, "stop": 2}]})",
                     {"a--", "-", "b-", "--"}),
              ElementsAre("a", "-", "--b", "-", ""));
  EXPECT_THAT(
      Stream(R"({"type": "Strip", "content": "-", "start": 1, "stop": 1})", {"--a-", "-b--"}),
      ElementsAre("-a", "b-", ""));
}

TEST(DecoderTest, ReplaceAcrossFusedTokens) {
  EXPECT_THAT(Stream(R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                         {"type": "Replace", "pattern": {"String": "aab"}, "content": "X"}]})",
                     {"a", "aa", "b", "ca"}),
              ElementsAre("", "a", "X", "c", "a"));
  EXPECT_THAT(
      Stream(R"({"type": "Replace", "pattern": {"Regex": "[ab]+"}, "content": "X"})", {"ca", "bb"}),
      ElementsAre("cX", "X", ""));
}

TEST(DecoderTest, Metaspace) {
  const char* json = R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"})";
  EXPECT_THAT(Stream(json, {"▁a", "▁b", "c▁d"}), ElementsAre("a", " b", "c d", ""));
  EXPECT_THAT(Stream(R"({"type": "Metaspace", "prepend_scheme": "never"})", {"▁a"}),
              ElementsAre(" a", ""));
}

TEST(DecoderTest, RefusesWhatItCannotStream) {
  for (const char* json :
       {R"({"type": "WordPiece"})", R"({"type": "Sequence"})", R"([])",
        R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteLevel"}]})",
        R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})",
        R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Metaspace"}]})",
        R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})",
        R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
            {"type": "Replace", "pattern": {"Regex": "a"}, "content": ""}]})",
        R"({"type": "Strip", "content": "ab", "start": 0, "stop": 0})",
        R"({"type": "Strip", "content": "a", "start": -1, "stop": 0})",
        R"({"type": "Strip", "content": "a", "start": 0, "stop": 99999999})",
        R"({"type": "Replace", "pattern": {"String": ""}, "content": ""})"}) {
    EXPECT_EQ(ParseDecoder(Json::parse(json), "decoder").status().code(),
              absl::StatusCode::kInvalidArgument)
        << json;
  }
}

}  // namespace
}  // namespace moesaic
