#include "tokenizer/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "checkpoint/json.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kSmall[] = R"({
    "version": "1.0", "truncation": {"max_length": 1}, "padding": null,
    "added_tokens": [{"id": 9, "content": "<s>", "special": true, "normalized": false},
                     {"id": 8, "content": "<tool>", "special": false, "normalized": false}],
    "normalizer": {"type": "Lowercase"},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [9]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ã": 4, "©": 5, "<": 6,
                                       "s": 7, "Ċ": 10, "Ā": 11},
              "merges": ["a b"]}})";

std::unique_ptr<Tokenizer> Small() {
  auto tokenizer = ParseTokenizerJson(kSmall);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return std::move(tokenizer).value();
}

TEST(TokenizerJsonTest, EncodesAndDecodes) {
  const auto tokenizer = Small();
  const auto ids = tokenizer->Encode("AB éa<s><tool>", EncodeOptions());
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(*ids, ElementsAre(9, 3, 2, 4, 5, 0, 9, 8));
  EXPECT_EQ(tokenizer->Decode(*ids, DecodeOptions()), "ab éa<tool>");
  EXPECT_EQ(tokenizer->Decode(*ids, {.skip_special_tokens = false}), "<s>ab éa<s><tool>");
}

TEST(TokenizerJsonTest, OptionsOfARequest) {
  const auto tokenizer = Small();
  EXPECT_THAT(*tokenizer->Encode("a<s>", {.add_special_tokens = false}), ElementsAre(0, 9));
  EXPECT_THAT(
      *tokenizer->Encode("a<s>", {.add_special_tokens = false, .parse_special_tokens = false}),
      ElementsAre(0, 6, 7));
  // Only special tokens stay text.
  EXPECT_THAT(
      *tokenizer->Encode("<tool>", {.add_special_tokens = false, .parse_special_tokens = false}),
      ElementsAre(8));
}

TEST(TokenizerJsonTest, EmptyTextsAndNulBytes) {
  const auto tokenizer = Small();
  EXPECT_THAT(*tokenizer->Encode("", EncodeOptions()), ElementsAre(9));
  EXPECT_THAT(*tokenizer->Encode("", {.add_special_tokens = false}), IsEmpty());
  EXPECT_THAT(*tokenizer->Encode(std::string_view("a\0b", 3), {.add_special_tokens = false}),
              ElementsAre(0, 11, 1));
  EXPECT_EQ(tokenizer->Decode({}, DecodeOptions()), "");
}

TEST(TokenizerJsonTest, InvalidUtf8NamesTheByte) {
  const auto ids = Small()->Encode("abc\xFF", EncodeOptions());
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("byte 3"));
}

TEST(TokenizerJsonTest, LooksUpTokens) {
  const auto tokenizer = Small();
  EXPECT_EQ(tokenizer->vocab_size(), 12);
  EXPECT_EQ(tokenizer->TokenToId("<s>"), 9);
  EXPECT_EQ(tokenizer->TokenToId("ab"), 3);
  EXPECT_EQ(tokenizer->TokenToId("zz"), std::nullopt);
  EXPECT_EQ(tokenizer->IdToToken(2), "Ġ");
  EXPECT_EQ(tokenizer->IdToToken(-1), "");
  EXPECT_EQ(tokenizer->IdToToken(1 << 30), "");
  EXPECT_TRUE(tokenizer->IsSpecial(9));
  EXPECT_FALSE(tokenizer->IsSpecial(8));
  EXPECT_FALSE(tokenizer->IsSpecial(-5));
  const std::vector<int32_t> ids = {-1, 0, 1 << 30, 1};
  EXPECT_EQ(tokenizer->Decode(ids, DecodeOptions()), "ab");
}

TEST(TokenizerJsonTest, ManyThreadsShareOne) {
  const auto tokenizer = Small();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 200; ++j) {
        const auto ids = tokenizer->Encode("AB éa<s>b", EncodeOptions());
        EXPECT_EQ(tokenizer->Decode(*ids, DecodeOptions()), "ab éab");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(TokenizerJsonTest, NamesTheFieldItCannotUse) {
  const std::pair<const char*, const char*> changes[] = {
      {"normalizer", R"({"type": "BertNormalizer"})"},
      {"pre_tokenizer", R"({"type": "UnicodeScripts"})"},
      {"post_processor", R"({"type": "Nonsense"})"},
      {"decoder", R"({"type": "CTC"})"},
      {"added_tokens", R"({"a": 1})"},
      {"model", R"({"type": "WordPiece", "vocab": {}})"},
      {"model", "null"},
  };
  for (const auto& [field, value] : changes) {
    Json json = Json::parse(kSmall);
    json[field] = Json::parse(value);
    const auto tokenizer = ParseTokenizerJson(json.dump());
    ASSERT_FALSE(tokenizer.ok()) << field;
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tokenizer.json"));
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(field));
  }
  for (const char* text : {"", "[]", "{}", "{\"model\": 3}", "\xFF"}) {
    EXPECT_EQ(ParseTokenizerJson(text).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace moesaic
