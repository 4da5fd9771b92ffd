#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>

#include "tokenizer/token_model.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int32_t> Ids(const Json& json, std::string text) {
  const auto model = ParseBpeModel(json, "model");
  EXPECT_TRUE(model.ok()) << model.status();
  PreTokenizedText pieces;
  if (!text.empty()) pieces.pieces = {{0, text.size()}};
  pieces.text = std::move(text);
  std::vector<int32_t> ids;
  EXPECT_TRUE((*model)->Tokenize(pieces, &ids).ok());
  return ids;
}

Json SmallModel() {
  return Json::parse(R"({
      "type": "BPE", "unk_token": null, "dropout": null, "continuing_subword_prefix": "",
      "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5, "aa": 6, "<unk>": 7,
                "<0xC3>": 8, "<0xA9>": 9},
      "merges": ["b c", "a b", ["a", "bc"], ["a", "a"]]})");
}

TEST(BpeModelTest, MergesByRankThenFromTheLeft) {
  EXPECT_THAT(Ids(SmallModel(), "abc"), ElementsAre(5));
  EXPECT_THAT(Ids(SmallModel(), "abab"), ElementsAre(3, 3));
  EXPECT_THAT(Ids(SmallModel(), "aaa"), ElementsAre(6, 0));
  EXPECT_THAT(Ids(SmallModel(), "aabc"), ElementsAre(0, 5));
  EXPECT_THAT(Ids(SmallModel(), ""), IsEmpty());
}

TEST(BpeModelTest, UnknownCharacters) {
  Json json = SmallModel();
  EXPECT_THAT(Ids(json, "aééb"), ElementsAre(3));  // dropped, as in the reference
  json["unk_token"] = "<unk>";
  EXPECT_THAT(Ids(json, "a字字b"), ElementsAre(0, 7, 7, 1));
  json["fuse_unk"] = true;
  EXPECT_THAT(Ids(json, "a字字b"), ElementsAre(0, 7, 1));
  json["byte_fallback"] = true;
  EXPECT_THAT(Ids(json, "aé字b"), ElementsAre(0, 8, 9, 7, 1));
}

TEST(BpeModelTest, IgnoreMergesTakesWholePieces) {
  Json json = SmallModel();
  json["vocab"]["cab"] = 10;
  EXPECT_THAT(Ids(json, "cab"), ElementsAre(2, 3));
  json["ignore_merges"] = true;
  EXPECT_THAT(Ids(json, "cab"), ElementsAre(10));
}

// The plain algorithm: look for the best pair, join it, look again.
std::vector<int32_t> SlowBpe(std::vector<int32_t> ids, const std::vector<BpeMerge>& merges) {
  while (true) {
    const BpeMerge* best = nullptr;
    size_t position = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      for (const BpeMerge& merge : merges) {
        if (merge.left == ids[i] && merge.right == ids[i + 1] &&
            (best == nullptr || merge.rank < best->rank)) {
          best = &merge;
          position = i;
        }
      }
    }
    if (best == nullptr) return ids;
    ids[position] = best->merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(position) + 1);
  }
}

TEST(BpeModelTest, IsThePlainAlgorithm) {
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    BpeParts parts;
    std::vector<std::string> tokens = {"a", "b", "c"};
    for (int32_t rank = 0; rank < 12; ++rank) {
      const size_t left = random() % tokens.size();
      const size_t right = random() % tokens.size();
      const std::string merged = tokens[left] + tokens[right];
      size_t id = 0;
      while (id < tokens.size() && tokens[id] != merged) ++id;
      if (id < tokens.size()) continue;
      tokens.push_back(merged);
      parts.merges.push_back({static_cast<int32_t>(left), static_cast<int32_t>(right),
                              static_cast<int32_t>(id), rank / 2});
    }
    for (size_t id = 0; id < tokens.size(); ++id) {
      ASSERT_TRUE(parts.vocabulary.Add(tokens[id], static_cast<int64_t>(id)).ok());
    }
    const std::vector<BpeMerge> merges = parts.merges;
    const auto model = MakeBpeModel(std::move(parts));
    PreTokenizedText text;
    std::vector<int32_t> characters;
    for (size_t i = 0; i < 40; ++i) {
      characters.push_back(static_cast<int32_t>(random() % 3));
      text.text += tokens[static_cast<size_t>(characters.back())];
    }
    text.pieces = {{0, text.text.size()}};
    std::vector<int32_t> ids;
    ASSERT_TRUE(model->Tokenize(text, &ids).ok());
    ASSERT_EQ(ids, SlowBpe(characters, merges)) << text.text;
  }
}

TEST(BpeModelTest, NamesTheFieldItCannotUse) {
  const std::pair<const char*, Json> changes[] = {
      {"dropout", 0.1},
      {"end_of_word_suffix", "</w>"},
      {"continuing_subword_prefix", "##"},
      {"unk_token", "[UNK]"},
      {"vocab", Json::array()},
      {"vocab", {{"a", -1}}},
      {"vocab", {{"a", 1 << 30}}},
      {"vocab", {{"a", "b"}}},
      {"merges", "a b"},
      {"merges", {"a"}},
      {"merges", {"a b c"}},
      {"merges", {"a z"}},
      {"merges", {"c a"}},
      {"merges", {{"a", 3}}},
      {"byte_fallback", "yes"},
  };
  for (const auto& [field, value] : changes) {
    Json json = SmallModel();
    json[field] = value;
    const auto model = ParseBpeModel(json, "model");
    ASSERT_FALSE(model.ok()) << field << ": " << value;
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(model.status().message()).find(field), std::string::npos)
        << model.status();
  }
}

}  // namespace
}  // namespace moesaic
