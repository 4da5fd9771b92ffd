#include "tokenizer/post_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(PostProcessorTest, Kinds) {
  const auto none = ParsePostProcessor(Json(), "post_processor");
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_THAT(none->before, IsEmpty());

  const auto sequence = ParsePostProcessor(Json::parse(R"(
      {"type": "Sequence", "processors": [
        {"type": "ByteLevel"},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "</s>", "type_id": 0}}],
         "special_tokens": {"<s>": {"ids": [1, 5]}, "</s>": {"ids": [2]}}},
        {"type": "RobertaProcessing", "cls": ["[", 7], "sep": ["]", 8]}]})"),
                                           "post_processor");
  ASSERT_TRUE(sequence.ok()) << sequence.status();
  EXPECT_THAT(sequence->before, ElementsAre(7, 1, 5));
  EXPECT_THAT(sequence->after, ElementsAre(2, 8));
}

TEST(PostProcessorTest, RefusesWhatIsMalformed) {
  for (const char* json : {R"({"type": "Nonsense"})", R"({"type": "TemplateProcessing"})", R"([])",
                           R"({"type": "TemplateProcessing", "single": []})",
                           R"({"type": "TemplateProcessing", "special_tokens": {},
            "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "x"}}]})",
                           R"({"type": "TemplateProcessing", "special_tokens": {"x": {"ids": [-1]}},
            "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "x"}}]})",
                           R"({"type": "BertProcessing", "cls": ["a"], "sep": ["b", 1]})"}) {
    EXPECT_EQ(ParsePostProcessor(Json::parse(json), "post_processor").status().code(),
              absl::StatusCode::kInvalidArgument)
        << json;
  }
}

}  // namespace
}  // namespace moesaic
