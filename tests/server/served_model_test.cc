#include "server/served_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace moesaic {
namespace {

using testing::HasSubstr;

class ServedModelTest : public testing::Test {
 protected:
  ServedModelTest() {
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void Write(const char* name, const std::string& text) { std::ofstream(folder_ / name) << text; }

  std::filesystem::path folder_;
};

TEST_F(ServedModelTest, TakesSamplingDefaultsFromGenerationConfig) {
  EXPECT_EQ(LoadGenerationDefaults(folder_, {})->temperature, 1.0f);
  Write("generation_config.json",
        R"({"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05,
            "max_new_tokens": 99, "eos_token_id": [1, 2], "do_sample": true})");
  const auto params = LoadGenerationDefaults(folder_, {});
  ASSERT_TRUE(params.ok()) << params.status();
  EXPECT_EQ(params->temperature, 0.6f);
  EXPECT_EQ(params->top_k, 20);
  EXPECT_EQ(params->top_p, 0.95f);
  EXPECT_EQ(params->repetition_penalty, 1.05f);
  EXPECT_EQ(params->max_tokens, 99);
}

TEST_F(ServedModelTest, RefusesAbsurdSamplingDefaults) {
  for (const char* text : {R"({"temperature": -1})", R"({"top_p": "x"})", R"({"top_k": 1e99})",
                           R"({"max_new_tokens": 0})", "[]", "{"}) {
    Write("generation_config.json", text);
    EXPECT_THAT(std::string(LoadGenerationDefaults(folder_, {}).status().message()),
                HasSubstr("generation_config.json"))
        << text;
  }
}

TEST_F(ServedModelTest, FindsTheChatTemplate) {
  EXPECT_EQ(*LoadChatTemplate(folder_), "");
  Write("tokenizer_config.json", R"({"chat_template": "{{ messages }}"})");
  EXPECT_EQ(*LoadChatTemplate(folder_), "{{ messages }}");
  Write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool", "template": "t"},
                              {"name": "default", "template": "d"}]})");
  EXPECT_EQ(*LoadChatTemplate(folder_), "d");
  Write("chat_template.jinja", "from file");
  EXPECT_EQ(*LoadChatTemplate(folder_), "from file");
  Write("chat_template.jinja", "\xff");
  EXPECT_THAT(std::string(LoadChatTemplate(folder_).status().message()), HasSubstr("UTF-8"));
}

TEST_F(ServedModelTest, AFolderWithoutATokenizerServesIds) {
  const auto tokenizer = LoadTokenizer(folder_);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(*tokenizer, nullptr);
  Write("tokenizer.json", "{");
  EXPECT_FALSE(LoadTokenizer(folder_).ok());
}

TEST_F(ServedModelTest, IsNamedAfterItsFolder) {
  EXPECT_EQ(ServedModelName("", folder_ / ""), folder_.filename().string());
  EXPECT_EQ(ServedModelName("other", folder_), "other");
}

}  // namespace
}  // namespace moesaic
