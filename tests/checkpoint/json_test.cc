#include "checkpoint/json.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/test_files.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(ParseJson, BuildsTheDocument) {
  const auto json =
      ParseJson(R"( {"a": [1, -2, 2.5, true, null, "x\u00e9"], "b": {"c": {}}} )", "t");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->dump(), "{\"a\":[1,-2,2.5,true,null,\"x\xc3\xa9\"],\"b\":{\"c\":{}}}");
}

TEST(ParseJson, ScalarRoot) {
  const auto json = ParseJson("7", "t");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(*json, 7);
}

TEST(ParseJson, RefusesWhatIsNotJson) {
  for (const std::string text : {"", "{", "[1,]", "{\"a\":1} x", "nul", "{\"a\" 1}", "[1e999]",
                                 "\"\xff\"", "{\"\xc3\x28\": 1}", "\"\\ud800\"", "'a'"}) {
    const auto json = ParseJson(text, "some.json");
    EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(Message(json.status()), HasSubstr("some.json")) << text;
    EXPECT_THAT(Message(json.status()), HasSubstr("byte")) << text;
  }
}

TEST(ParseJson, ErrorsStayShort) {
  const auto json = ParseJson("\"" + std::string(1 << 20, 'a') + "\xff", "t");
  EXPECT_FALSE(json.ok());
  EXPECT_LT(json.status().message().size(), 500u);
}

TEST(ParseJson, DuplicateKeys) {
  const std::string text = R"({"a": 1, "b": {"c": 1, "c": 2}})";
  EXPECT_THAT(Message(ParseJson(text, "t").status()), HasSubstr("duplicate key \"c\""));
  const auto lenient = ParseJson(text, "t", {.reject_duplicate_keys = false});
  ASSERT_TRUE(lenient.ok());
  EXPECT_EQ((*lenient)["b"]["c"], 2);
  EXPECT_TRUE(ParseJson(R"([{"a": 1}, {"a": 2}])", "t").ok());
}

TEST(ParseJson, DepthIsBounded) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(ParseJson(nested(64), "t").ok());
  EXPECT_THAT(Message(ParseJson(nested(65), "t").status()), HasSubstr("deeper than 64"));
  // Never closed, and deep enough to overflow any stack that recursed.
  EXPECT_FALSE(ParseJson(std::string(10'000'000, '['), "t").ok());
}

TEST(ParseJson, CountAndSizeAreBounded) {
  EXPECT_TRUE(ParseJson("[1,2,3]", "t", {.max_values = 4}).ok());
  EXPECT_THAT(Message(ParseJson("[1,2,3,4]", "t", {.max_values = 4}).status()),
              HasSubstr("more than 4 values"));
  EXPECT_THAT(Message(ParseJson("[[],[],[],[]]", "t", {.max_values = 4}).status()),
              HasSubstr("more than 4 values"));
  EXPECT_THAT(Message(ParseJson("[1, 2]", "t", {.max_bytes = 5}).status()), HasSubstr("6 bytes"));
}

TEST(ParseJsonFile, ReadsAndRefuses) {
  const TempFolder folder;
  const auto json = ParseJsonFile(folder.Write("a.json", R"({"a": 1})"));
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["a"], 1);
  EXPECT_TRUE(absl::IsNotFound(ParseJsonFile(folder.path() / "none.json").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ParseJsonFile(folder.path()).status()));
  EXPECT_THAT(Message(ParseJsonFile(folder.Write("b.json", "[1"), {}).status()),
              HasSubstr("b.json"));
  EXPECT_FALSE(ParseJsonFile(folder.Write("c.json", "[1, 2]"), {.max_bytes = 5}).ok());
}

class JsonFields : public testing::Test {
 protected:
  const Json object_ = *ParseJson(
      R"({"int": 7, "negative": -7, "huge": 18446744073709551615, "float": 7.0, "null": null,
          "true": true, "text": "x", "list": [1]})",
      "t");
};

TEST_F(JsonFields, Int) {
  EXPECT_EQ(*JsonInt(object_, "int", "t", 0, 10), 7);
  EXPECT_EQ(*JsonInt(object_, "negative", "t", -10, 10), -7);
  EXPECT_EQ(*JsonInt(object_, "missing", "t", 0, 10, 3), 3);
  EXPECT_EQ(*JsonInt(object_, "null", "t", 0, 10, 3), 3);
  EXPECT_THAT(Message(JsonInt(object_, "missing", "t", 0, 10).status()),
              HasSubstr("\"missing\" is missing"));
  EXPECT_THAT(Message(JsonInt(object_, "int", "t", 8, 10).status()),
              HasSubstr("\"int\" is 7, expected an integer in [8, 10]"));
  for (const char* field : {"huge", "float", "true", "text", "list"}) {
    EXPECT_FALSE(JsonInt(object_, field, "t", 0, INT64_MAX, 3).ok()) << field;
  }
}

TEST_F(JsonFields, OtherTypes) {
  EXPECT_EQ(*JsonNumber(object_, "int", "t"), 7.0);
  EXPECT_EQ(*JsonNumber(object_, "float", "t"), 7.0);
  EXPECT_EQ(*JsonNumber(object_, "null", "t", 1.5), 1.5);
  EXPECT_FALSE(JsonNumber(object_, "text", "t", 1.5).ok());
  EXPECT_EQ(*JsonBool(object_, "true", "t"), true);
  EXPECT_EQ(*JsonBool(object_, "missing", "t", true), true);
  EXPECT_FALSE(JsonBool(object_, "int", "t", true).ok());
  EXPECT_EQ(*JsonString(object_, "text", "t"), "x");
  EXPECT_EQ(*JsonString(object_, "missing", "t", "y"), "y");
  EXPECT_FALSE(JsonString(object_, "true", "t", "y").ok());
  EXPECT_FALSE(JsonString(object_, "missing", "t").ok());
}

TEST_F(JsonFields, Find) {
  EXPECT_EQ(*JsonFind(object_, "list"), Json::array({1}));
  EXPECT_EQ(JsonFind(object_, "null"), nullptr);
  EXPECT_EQ(JsonFind(object_, "missing"), nullptr);
  EXPECT_EQ(JsonFind(Json(3), "missing"), nullptr);
}

}  // namespace
}  // namespace moesaic
