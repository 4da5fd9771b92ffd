#include "tokenizer/sentencepiece_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

namespace moesaic {
namespace {

using testing::ElementsAre;

std::string Model() {
  std::ifstream file(MOESAIC_SOURCE_DIR "/tests/tokenizer/testdata/llama_model/tokenizer.model",
                     std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const char* config) {
  return MakeSentencePieceTokenizer(Model(), Json::parse(config));
}

std::vector<std::string> Tokens(const char* config, std::string_view text) {
  const auto tokenizer = Make(config);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = (*tokenizer)->Encode(text, EncodeOptions());
  EXPECT_TRUE(ids.ok()) << ids.status();
  std::vector<std::string> tokens;
  for (const int32_t id : *ids) tokens.push_back((*tokenizer)->IdToToken(id));
  return tokens;
}

TEST(SentencePieceTokenizerTest, TheConfigurationDecidesWhatIsAdded) {
  EXPECT_THAT(Tokens("null", "the"), ElementsAre("<s>", "▁the"));
  EXPECT_THAT(Tokens(R"({"add_bos_token": false, "add_eos_token": true})", "the"),
              ElementsAre("▁the", "</s>"));
  EXPECT_THAT(Tokens(R"({"add_prefix_space": false, "add_bos_token": false})", " the"),
              ElementsAre("▁the"));
}

TEST(SentencePieceTokenizerTest, OnlyALegacyTokenizerPrefixesWhatFollowsASpecialToken) {
  EXPECT_THAT(Tokens("{}", "the</s>the").back(), testing::Not("▁the"));
  EXPECT_THAT(Tokens(R"({"legacy": true})", "the</s>the"),
              ElementsAre("<s>", "▁the", "</s>", "▁the"));
}

TEST(SentencePieceTokenizerTest, AddedTokensOfTheConfiguration) {
  const auto tokenizer = Make(R"({"added_tokens_decoder": {
      "2": {"content": "</s>", "special": true},
      "2000": {"content": "<|im_start|>", "special": true, "normalized": false},
      "2001": {"content": "[tool]", "special": false, "normalized": true}}})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 2002);
  const auto ids = (*tokenizer)->Encode("<|im_start|>[tool]<s>", {.add_special_tokens = false});
  EXPECT_THAT(*ids, ElementsAre(2000, 2001, 1));
  EXPECT_EQ((*tokenizer)->Decode(*ids, DecodeOptions()), "[tool]");
}

TEST(SentencePieceTokenizerTest, RoundTrip) {
  const auto tokenizer = Make("null");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const std::string text : {"", " ", "  two  spaces ", "字👍\n\té", "a\0b"}) {
    const auto ids = (*tokenizer)->Encode(text, EncodeOptions());
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ((*tokenizer)->Decode(*ids, DecodeOptions()), text);
  }
}

TEST(SentencePieceTokenizerTest, RefusesWhatIsMalformed) {
  for (const char* config : {"[]", R"({"add_bos_token": 3})", R"({"added_tokens_decoder": []})",
                             R"({"added_tokens_decoder": {"x": {"content": "a"}}})",
                             R"({"added_tokens_decoder": {"-1": {"content": "a"}}})",
                             R"({"added_tokens_decoder": {"99999999": {"content": "a"}}})",
                             R"({"added_tokens_decoder": {"2000": "a"}})"}) {
    EXPECT_EQ(Make(config).status().code(), absl::StatusCode::kInvalidArgument) << config;
  }
  EXPECT_EQ(MakeSentencePieceTokenizer("text", Json()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace moesaic
