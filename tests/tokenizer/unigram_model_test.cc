#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tokenizer/token_model.h"

namespace moesaic {
namespace {

using testing::ElementsAre;

Json SmallModel() {
  return Json::parse(R"({
      "type": "Unigram", "unk_id": 0,
      "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -1.0], ["ab", -1.5], ["abc", -5.0], ["c", -1.0],
                ["<0xC3>", -9.0], ["<0xA9>", -9.0]]})");
}

absl::StatusOr<std::vector<int32_t>> Ids(const Json& json, std::string text) {
  const auto model = ParseUnigramModel(json, "model");
  EXPECT_TRUE(model.ok()) << model.status();
  PreTokenizedText pieces;
  pieces.pieces = {{0, text.size()}};
  pieces.text = std::move(text);
  std::vector<int32_t> ids;
  const absl::Status status = (*model)->Tokenize(pieces, &ids);
  if (!status.ok()) return status;
  return ids;
}

TEST(UnigramModelTest, TakesTheBestPath) {
  EXPECT_THAT(*Ids(SmallModel(), "ab"), ElementsAre(3));
  EXPECT_THAT(*Ids(SmallModel(), "abc"), ElementsAre(3, 5));  // -2.5 beats -5
  EXPECT_THAT(*Ids(SmallModel(), "ba"), ElementsAre(2, 1));
}

TEST(UnigramModelTest, UnknownCharactersFuse) {
  EXPECT_THAT(*Ids(SmallModel(), "a字字b"), ElementsAre(1, 0, 2));
  Json json = SmallModel();
  json["byte_fallback"] = true;
  EXPECT_THAT(*Ids(json, "aéb"), ElementsAre(1, 6, 7, 2));
  EXPECT_THAT(*Ids(json, "a字b"), ElementsAre(1, 0, 2));  // not all of its bytes have tokens
}

TEST(UnigramModelTest, WithoutUnknownTokenItFails) {
  Json json = SmallModel();
  json["unk_id"] = nullptr;
  EXPECT_EQ(Ids(json, "字").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(*Ids(json, "ab"), ElementsAre(3));
}

TEST(UnigramModelTest, TokensWithoutScoreAreNotFound) {
  UnigramParts parts;
  ASSERT_TRUE(parts.vocabulary.Add("<unk>", 0).ok());
  ASSERT_TRUE(parts.vocabulary.Add("a", 1).ok());
  parts.scores = {std::nullopt, -1.0};
  parts.unknown_id = 0;
  const auto model = MakeUnigramModel(std::move(parts));
  PreTokenizedText text;
  text.text = "a>";
  text.pieces = {{0, 2}};
  std::vector<int32_t> ids;
  ASSERT_TRUE(model->Tokenize(text, &ids).ok());
  EXPECT_THAT(ids, ElementsAre(1, 0));
}

TEST(UnigramModelTest, NamesTheFieldItCannotUse) {
  const std::pair<const char*, Json> changes[] = {
      {"vocab", Json::array()}, {"vocab", Json::object()},          {"vocab", {{"a"}}},
      {"vocab", {{"a", "b"}}},  {"vocab", Json::parse("[[1, 2]]")}, {"unk_id", 8},
      {"unk_id", "a"},
  };
  for (const auto& [field, value] : changes) {
    Json json = SmallModel();
    json[field] = value;
    const auto model = ParseUnigramModel(json, "model");
    ASSERT_FALSE(model.ok()) << field << ": " << value;
    EXPECT_NE(std::string(model.status().message()).find(field), std::string::npos)
        << model.status();
  }
}

}  // namespace
}  // namespace moesaic
