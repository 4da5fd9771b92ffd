#include "tokenizer/added_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace moesaic {
namespace {

using testing::ElementsAre;

// Parts as "text" or "#id:text".
std::vector<std::string> Show(std::string_view text, const std::vector<AddedTokens::Part>& parts) {
  std::vector<std::string> shown;
  for (const AddedTokens::Part& part : parts) {
    const std::string span(text.substr(part.span.begin, part.span.end - part.span.begin));
    shown.push_back(part.id < 0 ? span : "#" + std::to_string(part.id) + ":" + span);
  }
  return shown;
}

absl::StatusOr<AddedTokens> Parse(const char* json) {
  Vocabulary model;
  EXPECT_TRUE(model.Add("known", 3).ok());
  const auto normalizer = ParseNormalizer(Json::parse(R"({"type": "Lowercase"})"), "normalizer");
  return AddedTokens::Parse(Json::parse(json), "added_tokens", model, **normalizer);
}

TEST(AddedTokensTest, TheLongestAtTheLeftmostPlaceWins) {
  const auto added = Parse(R"([{"id": 10, "content": "<a", "special": true},
                               {"id": 11, "content": "<a>", "special": true},
                               {"id": 12, "content": "a>b", "special": true}])");
  ASSERT_TRUE(added.ok()) << added.status();
  const std::string text = "x<a>b<ab";
  EXPECT_THAT(Show(text, added->SplitRaw(text, true)),
              ElementsAre("x", "#11:<a>", "b", "#10:<a", "b"));
  EXPECT_THAT(Show(text, added->SplitRaw(text, false)), ElementsAre(text));
  EXPECT_EQ(added->size(), 13);
  EXPECT_EQ(added->FindId("a>b"), 12);
  EXPECT_EQ(added->Find(11)->content, "<a>");
  EXPECT_EQ(added->Find(9), nullptr);
  EXPECT_TRUE(added->IsSpecial("<a>"));
  EXPECT_FALSE(added->IsSpecial("x"));
}

TEST(AddedTokensTest, StripsAndSingleWords) {
  const auto added = Parse(
      R"([{"id": 10, "content": "<l>", "lstrip": true, "normalized": false},
          {"id": 11, "content": "<r>", "rstrip": true, "normalized": false},
          {"id": 12, "content": "word", "single_word": true, "normalized": false}])");
  ASSERT_TRUE(added.ok()) << added.status();
  const std::string text = "a \u3000<l> b <r> \n<l>word words é.word_ word";
  EXPECT_THAT(Show(text, added->SplitRaw(text, true)),
              ElementsAre("a", "#10: \u3000<l>", " b ", "#11:<r> \n", "#10:<l>", "#12:word",
                          " words é.word_ ", "#12:word"));
}

TEST(AddedTokensTest, NormalizedTokensAreFoundInNormalizedText) {
  const auto added = Parse(R"([{"id": 10, "content": "<A>", "normalized": true},
                               {"id": 11, "content": "<B>", "normalized": false}])");
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_THAT(Show("<A><B>", added->SplitRaw("<A><B>", true)), ElementsAre("<A>", "#11:<B>"));
  EXPECT_THAT(Show("<a><b>", added->SplitNormalized("<a><b>", true)),
              ElementsAre("#10:<a>", "<b>"));
}

TEST(AddedTokensTest, RefusesWhatIsMalformed) {
  for (const char* json :
       {"{}", "[1]", R"([{"id": 1}])", R"([{"content": "a"}])", R"([{"id": -1, "content": "a"}])",
        R"([{"id": 99999999, "content": "a"}])", R"([{"id": 4, "content": "known"}])",
        R"([{"id": 10, "content": "a"}, {"id": 11, "content": "a"}])",
        R"([{"id": 10, "content": "a", "special": "yes"}])"}) {
    EXPECT_EQ(Parse(json).status().code(), absl::StatusCode::kInvalidArgument) << json;
  }
}

}  // namespace
}  // namespace moesaic
