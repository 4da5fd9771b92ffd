// Ids against Hugging Face `tokenizers`, from tests/tokenizer/testdata, which
// scripts/make_tokenizer_goldens.py writes and describes.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace moesaic {
namespace {

constexpr size_t kFullTexts = 120;

std::string TestdataPath(std::string_view name) {
  return std::string(MOESAIC_SOURCE_DIR "/tests/tokenizer/testdata/") + std::string(name);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <typename T>
T Take(std::string_view* data) {
  T value{};
  if (data->size() < sizeof(T)) {
    ADD_FAILURE() << "file ends early";
    return value;
  }
  std::memcpy(&value, data->data(), sizeof(T));
  data->remove_prefix(sizeof(T));
  return value;
}

std::vector<std::string> ReadCorpus() {
  const std::string file = ReadFile(TestdataPath("corpus.bin"));
  std::vector<std::string> texts;
  for (std::string_view rest = file; !rest.empty();) {
    const auto length = Take<uint32_t>(&rest);
    texts.emplace_back(rest.substr(0, length));
    rest.remove_prefix(std::min<size_t>(length, rest.size()));
  }
  return texts;
}

uint64_t Fnv1a(const std::vector<int32_t>& ids) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3u;
    }
  }
  return hash;
}

class TokenizerGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto loaded = Tokenizer::Load(TestdataPath(GetParam()));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = std::move(loaded).value();
    texts_ = ReadCorpus();
    size_t bytes = 0;
    for (const std::string& text : texts_) bytes += text.size();
    ASSERT_GT(bytes, 1'000'000u);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<std::string> texts_;
};

TEST_P(TokenizerGoldenTest, IdsAreThoseOfTheReference) {
  const std::string file = ReadFile(TestdataPath(std::string(GetParam()) + "/ids.bin"));
  std::string_view hashes = file;
  ASSERT_GT(file.size(), texts_.size() * sizeof(uint64_t));
  std::string_view full = hashes.substr(texts_.size() * sizeof(uint64_t));
  int wrong = 0;
  for (size_t i = 0; i < texts_.size(); ++i) {
    const auto ids = tokenizer_->Encode(texts_[i], EncodeOptions());
    ASSERT_TRUE(ids.ok()) << ids.status();
    if (i < kFullTexts) {
      std::vector<int32_t> expected(Take<uint32_t>(&full));
      for (int32_t& id : expected) id = Take<int32_t>(&full);
      EXPECT_EQ(*ids, expected) << "text " << i << ": " << texts_[i];
    }
    if (Take<uint64_t>(&hashes) != Fnv1a(*ids)) ++wrong;
  }
  EXPECT_EQ(wrong, 0) << "of " << texts_.size();
}

// What was emitted piece by piece is the whole, and every piece is complete characters.
TEST_P(TokenizerGoldenTest, StreamedTextIsTheDecodedText) {
  for (size_t i = 0; i < texts_.size(); i += 3) {
    const auto ids = tokenizer_->Encode(texts_[i], EncodeOptions());
    ASSERT_TRUE(ids.ok()) << ids.status();
    for (const bool skip_special_tokens : {false, true}) {
      const DecodeOptions options{.skip_special_tokens = skip_special_tokens};
      const std::string whole = tokenizer_->Decode(*ids, options);
      IncrementalDetokenizer stream(*tokenizer_, options);
      std::string streamed;
      for (const int32_t id : *ids) {
        const std::string piece = stream.Push(id);
        ASSERT_TRUE(piece.empty() || (piece[0] & 0xC0) != 0x80);
        streamed += piece;
      }
      ASSERT_EQ(streamed + stream.Flush(), whole) << "text " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Pipelines,
    TokenizerGoldenTest,
    testing::Values("qwen", "olmoe", "mixtral", "mixtral_metaspace", "t5", "llama_model"),
    [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace moesaic
