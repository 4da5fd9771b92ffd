#include "tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include <string>

namespace moesaic {
namespace {

std::string Normalize(const char* json, std::string text) {
  const auto normalizer = ParseNormalizer(Json::parse(json), "normalizer");
  EXPECT_TRUE(normalizer.ok()) << normalizer.status();
  EXPECT_TRUE((*normalizer)->Apply(&text).ok());
  return text;
}

TEST(NormalizerTest, Kinds) {
  EXPECT_EQ(Normalize("null", " É"), " É");
  EXPECT_EQ(Normalize(R"({"type": "NFD"})", "é"), "e\u0301");
  EXPECT_EQ(Normalize(R"({"type": "Lowercase"})", "ÀB"), "àb");
  EXPECT_EQ(Normalize(R"({"type": "StripAccents"})", "e\u0301x"), "ex");
  EXPECT_EQ(Normalize(R"({"type": "Nmt"})", "a\u0001b\u200Bc\nd"), "ab c d");
  EXPECT_EQ(Normalize(R"({"type": "Prepend", "prepend": "_"})", "a"), "_a");
  EXPECT_EQ(Normalize(R"({"type": "Prepend", "prepend": "_"})", ""), "");
  EXPECT_EQ(Normalize(R"({"type": "Replace", "pattern": {"String": " "}, "content": "_"})", "a b "),
            "a_b_");
  EXPECT_EQ(Normalize(R"({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "_"})",
                      "a  b c   "),
            "a_b c_");
}

TEST(NormalizerTest, StripTakesAllKindsOfSpace) {
  const char* both = R"({"type": "Strip", "strip_left": true, "strip_right": true})";
  const char* right = R"({"type": "Strip", "strip_left": false, "strip_right": true})";
  EXPECT_EQ(Normalize(both, "\u3000 \ta b\u0085 "), "a b");
  EXPECT_EQ(Normalize(right, " a \u2003"), " a");
  EXPECT_EQ(Normalize(both, " \n "), "");
}

TEST(NormalizerTest, SequenceRunsInOrder) {
  EXPECT_EQ(Normalize(R"({"type": "Sequence", "normalizers": [
                          {"type": "Replace", "pattern": {"String": "a"}, "content": "B"},
                          {"type": "Lowercase"}]})",
                      "aA"),
            "ba");
}

TEST(NormalizerTest, NamesTheFieldItCannotUse) {
  for (const char* json :
       {R"({"type": "Sequence", "normalizers": [{"type": "Nonsense"}]})",
        R"({"type": "Sequence", "normalizers": [{"type": "Replace", "content": ""}]})",
        R"({"type": "Sequence", "normalizers": [{"type": "Replace", "content": "",
            "pattern": {"Regex": "("}}]})",
        R"({"type": "Sequence", "normalizers": [{"type": "Precompiled",
            "precompiled_charsmap": "!"}]})",
        R"({"type": "Sequence", "normalizers": [{"type": "Prepend"}]})"}) {
    const auto normalizer = ParseNormalizer(Json::parse(json), "normalizer");
    ASSERT_FALSE(normalizer.ok()) << json;
    EXPECT_NE(std::string(normalizer.status().message()).find("normalizer.normalizers[0]"),
              std::string::npos)
        << normalizer.status();
  }
}

}  // namespace
}  // namespace moesaic
