#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

class IncrementalDetokenizerTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto loaded =
        Tokenizer::Load(std::string(MOESAIC_SOURCE_DIR "/tests/tokenizer/testdata/") + GetParam());
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = std::move(loaded).value();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

// Random ids make every kind of broken character.
TEST_P(IncrementalDetokenizerTest, RandomIdsStreamToTheirDecodedText) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    const DecodeOptions options{.skip_special_tokens = round % 2 == 0};
    std::vector<int32_t> ids(random() % 60);
    for (int32_t& id : ids) {
      // Half of them from the lower ids, where the byte tokens are.
      const int32_t below = random() % 2 == 0 ? 300 : tokenizer_->vocab_size() + 2;
      id = static_cast<int32_t>(random() % static_cast<uint32_t>(below)) - 1;
    }
    IncrementalDetokenizer stream(*tokenizer_, options);
    std::string text;
    for (const int32_t id : ids) {
      const std::string piece = stream.Push(id);
      ASSERT_EQ(FindInvalidUtf8(piece), std::nullopt);
      text += piece;
    }
    text += stream.Flush();
    ASSERT_EQ(text, tokenizer_->Decode(ids, options));
  }
}

TEST_P(IncrementalDetokenizerTest, TheContextDecidesTheLeadingSpace) {
  const std::string prompt = "The first words,";
  const std::string whole = prompt + " then the others 字👍";
  const auto prompt_ids = tokenizer_->Encode(prompt, {.add_special_tokens = false});
  const auto ids = tokenizer_->Encode(whole, {.add_special_tokens = false});
  ASSERT_TRUE(prompt_ids.ok() && ids.ok());
  ASSERT_TRUE(std::equal(prompt_ids->begin(), prompt_ids->end(), ids->begin()));
  const size_t begin = prompt_ids->size();
  IncrementalDetokenizer stream(*tokenizer_, DecodeOptions(), std::span(*ids).first(begin));
  std::string text;
  for (size_t i = begin; i < ids->size(); ++i) text += stream.Push((*ids)[i]);
  text += stream.Flush();
  EXPECT_EQ(tokenizer_->Decode(*prompt_ids, DecodeOptions()) + text,
            tokenizer_->Decode(*ids, DecodeOptions()));
  EXPECT_EQ(text.substr(0, 5), " then");
}

TEST_P(IncrementalDetokenizerTest, ASpecialTokenIsNoBeginning) {
  int32_t special = 0;
  while (!tokenizer_->IsSpecial(special)) ++special;
  const auto ids = tokenizer_->Encode("two words", {.add_special_tokens = false});
  ASSERT_TRUE(ids.ok());
  // Text, special tokens that are skipped, and the text again: it does not begin anew.
  std::vector<int32_t> context = *ids;
  context.insert(context.end(), 20, special);
  std::vector<int32_t> all = context;
  all.insert(all.end(), ids->begin(), ids->end());
  IncrementalDetokenizer stream(*tokenizer_, DecodeOptions(), context);
  std::string text;
  for (const int32_t id : *ids) text += stream.Push(id);
  EXPECT_EQ("two words" + text + stream.Flush(), tokenizer_->Decode(all, DecodeOptions()));
}

INSTANTIATE_TEST_SUITE_P(
    Pipelines,
    IncrementalDetokenizerTest,
    testing::Values("qwen", "olmoe", "mixtral", "mixtral_metaspace", "t5", "llama_model"),
    [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace moesaic
