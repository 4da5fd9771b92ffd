#include "tokenizer/sentencepiece_model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>

namespace moesaic {
namespace {

std::string Bytes(int field, std::string_view value) {  // of less than 128 bytes
  return std::string(1, static_cast<char>(field << 3 | 2)) +
         std::string(1, static_cast<char>(value.size())) + std::string(value);
}

std::string Number(int field, int value) {  // both less than 128, the field less than 128
  std::string key;
  if (field >= 16) {
    key = {static_cast<char>((field << 3 & 0x7F) | 0x80), static_cast<char>(field >> 4)};
  } else {
    key = {static_cast<char>(field << 3)};
  }
  return key + std::string(1, static_cast<char>(value));
}

std::string Piece(std::string_view text, float score, int type) {
  std::string bits(sizeof(score), '\0');
  std::memcpy(bits.data(), &score, sizeof(score));
  return Bytes(1, Bytes(1, text) + "\x15" + bits + Number(3, type));
}

std::string SmallModel() {
  return Piece("<unk>", 0, 2) + Piece("<s>", 0, 3) + Piece("a", -1.5f, 1) +
         Bytes(2, Number(3, 2) + Number(35, 1) + Number(42, 2)) +
         Bytes(3, Bytes(2, "map") + Number(3, 0) + Number(4, 0)) + Bytes(9, "ignored");
}

TEST(SentencePieceModelTest, ReadsEveryField) {
  const auto model = ParseSentencePieceModel(SmallModel());
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->pieces.size(), 3u);
  EXPECT_EQ(model->pieces[2].text, "a");
  EXPECT_EQ(model->pieces[2].score, -1.5f);
  EXPECT_EQ(model->pieces[1].type, SentencePieceModel::PieceType::kControl);
  EXPECT_EQ(model->type, SentencePieceModel::Type::kBpe);
  EXPECT_TRUE(model->byte_fallback);
  EXPECT_EQ(model->unknown_id, 0);
  EXPECT_EQ(model->bos_id, 1);
  EXPECT_EQ(model->eos_id, -1);  // piece 2 is no control token
  EXPECT_EQ(model->precompiled_charsmap, "map");
  EXPECT_FALSE(model->add_dummy_prefix);
  EXPECT_FALSE(model->remove_extra_whitespaces);
}

TEST(SentencePieceModelTest, RefusesWhatIsMalformed) {
  const std::string good = SmallModel();
  for (const std::string& bytes :
       {std::string(), std::string("no model at all"), good.substr(0, 5), good + "\x0A",
        good + Bytes(1, "\x0A\x05"), good + Bytes(2, Number(3, 3)), good + Bytes(2, Number(24, 1)),
        good + Bytes(3, Number(5, 0)), good + Bytes(2, Number(40, 2)), good + Piece("", 0, 1),
        good + Piece("\xFF", 0, 1), good + Piece("b", 0, 7),
        good + Piece("b", std::numeric_limits<float>::quiet_NaN(), 1)}) {
    EXPECT_EQ(ParseSentencePieceModel(bytes).status().code(), absl::StatusCode::kInvalidArgument)
        << testing::PrintToString(bytes);
  }
}

TEST(SentencePieceModelTest, BrokenBytesNeverCrash) {
  std::mt19937 random(5);
  const std::string good = SmallModel();
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = good.substr(0, random() % (good.size() + 1));
    for (int j = 0; j < 3 && !bytes.empty(); ++j) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (!ParseSentencePieceModel(bytes).ok()) ++refused;
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace moesaic
