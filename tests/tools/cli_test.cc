// Covers tools/cli/options.cc and tools/cli/output.cc; tools/cli/main.cc is run by
// tests/server/cli_test.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/json.h"
#include "tools/cli/options.h"
#include "tools/cli/output.h"

namespace moesaic::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<Options> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "moesaic-cli");
  return ParseOptions(static_cast<int>(arguments.size()), arguments.data());
}

// What a printer writes to its output file.
std::string Printed(const Options& options, const std::vector<v1::GenerateResponse>& messages) {
  std::FILE* file = std::tmpfile();
  GenerationPrinter printer(options, file, file);
  for (const auto& message : messages) printer.Print(message);
  printer.Finish(absl::Seconds(2), absl::Seconds(1));
  std::rewind(file);
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  return text;
}

v1::GenerateResponse Message(const std::string& text, const std::vector<int32_t>& ids) {
  v1::GenerateResponse message;
  message.set_text(text);
  message.mutable_token_ids()->Add(ids.begin(), ids.end());
  return message;
}

TEST(CliOptionsTest, ReadsAGenerateCommand) {
  const auto options = Parse({"generate", "--address", "h:1", "--temperature", "0", "--top-k", "5",
                              "--seed", "18446744073709551615", "--stop", "a b", "--stop", ".",
                              "--ignore-eos", "--timeout", "2.5", "--json", "a violin"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->command, Command::kGenerate);
  EXPECT_EQ(options->address, "h:1");
  EXPECT_EQ(options->request.text(), "a violin");
  const v1::SamplingParams& sampling = options->request.sampling();
  EXPECT_EQ(sampling.temperature(), 0.0f);
  EXPECT_EQ(sampling.top_k(), 5);
  EXPECT_EQ(sampling.seed(), UINT64_MAX);
  EXPECT_THAT(sampling.stop(), ElementsAre("a b", "."));
  EXPECT_TRUE(sampling.ignore_eos());
  EXPECT_EQ(sampling.max_tokens(), 128);
  EXPECT_FALSE(sampling.has_top_p());  // the server's default
  EXPECT_EQ(options->timeout, absl::Milliseconds(2500));
  EXPECT_TRUE(options->json);
}

TEST(CliOptionsTest, ReadsTokenIds) {
  const auto options = Parse({"generate", "--ids", "3, 1 4"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_THAT(options->request.token_ids().ids(), ElementsAre(3, 1, 4));
  for (const char* bad :
       {"x", "1,-2", "99999999999", "1.5", "", "1,,2", ",1", "1,", "1, ,2", ","}) {
    EXPECT_FALSE(Parse({"generate", "--ids", bad}).ok()) << bad;
  }
}

TEST(CliOptionsTest, ThePromptMayComeFromStandardInput) {
  EXPECT_TRUE(Parse({"generate"})->read_stdin);
  EXPECT_TRUE(Parse({"tokenize", "-"})->read_stdin);
  EXPECT_FALSE(Parse({"tokenize", "text"})->read_stdin);
  EXPECT_FALSE(Parse({"info"})->read_stdin);
}

TEST(CliOptionsTest, ExplainsWhatIsWrong) {
  EXPECT_FALSE(Parse({}).ok());
  EXPECT_FALSE(Parse({"dance"}).ok());
  EXPECT_THAT(std::string(Parse({"info", "--address", ""}).status().message()),
              HasSubstr("--address is empty"));
  EXPECT_THAT(std::string(Parse({"generate", "--ids", "1,,2"}).status().message()),
              HasSubstr("a token id is missing"));
  EXPECT_FALSE(Parse({"generate", "--temperature", "hot", "x"}).ok());
  EXPECT_THAT(std::string(Parse({"generate", ""}).status().message()), HasSubstr("empty"));
  EXPECT_THAT(std::string(Parse({"generate", "a\xff"}).status().message()), HasSubstr("UTF-8"));
}

TEST(CliOptionsTest, HelpIsForTheCommandOrForAll) {
  const auto all = Parse({"--help"});
  EXPECT_EQ(all->command, Command::kPrint);
  EXPECT_THAT(all->text, HasSubstr("generate"));
  EXPECT_THAT(Parse({"generate", "--help"})->text, HasSubstr("--temperature"));
}

TEST(CliOutputTest, WritesTextAsItComes) {
  EXPECT_EQ(Printed({}, {Message("a ", {1}), Message("b", {2})}), "a b\n");
  EXPECT_EQ(Printed({}, {Message("line\n", {1})}), "line\n");
}

TEST(CliOutputTest, WritesIdsWhenThePromptIsIds) {
  Options options;
  options.prompt_is_ids = true;
  EXPECT_EQ(Printed(options, {Message("", {1, 2}), Message("", {3})}), "1 2 3 \n");
}

TEST(CliOutputTest, KeepsSequencesApart) {
  Options options;
  options.request.mutable_sampling()->set_n(2);
  v1::GenerateResponse second = Message("right", {2});
  second.set_index(1);
  EXPECT_EQ(Printed(options, {Message("le", {1}), second, Message("ft", {1})}),
            "[0] left\n[1] right\n");
}

TEST(CliOutputTest, StatsCountTokensAndTime) {
  Options options;
  options.stats = true;
  v1::GenerateResponse last = Message("", {2, 3});
  last.mutable_usage()->set_prompt_tokens(7);
  EXPECT_THAT(Printed(options, {Message("x", {1}), last}),
              HasSubstr("7 prompt tokens (0 cached), 3 new; first token after 1.000 s, 2.0 "
                        "tokens/s"));
}

TEST(CliOutputTest, JsonHasEveryField) {
  v1::GenerateResponse message = Message("x\"y", {5});
  message.set_request_id("r");
  message.set_finish_reason(v1::FINISH_REASON_STOP);
  message.set_stop_string(".");
  message.mutable_usage()->set_completion_tokens(1);
  v1::TokenLogprobs* logprobs = message.add_logprobs();
  logprobs->mutable_chosen()->set_logprob(-0.5f);
  logprobs->add_top()->set_token_id(9);
  const auto json = ParseJson(ToJson(message), "output");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["text"], "x\"y");
  EXPECT_EQ((*json)["token_ids"][0], 5);
  EXPECT_EQ((*json)["finish_reason"], "stop");
  EXPECT_EQ((*json)["stop_reason"], ".");
  EXPECT_EQ((*json)["logprobs"][0]["chosen"]["logprob"], -0.5);
  EXPECT_EQ((*json)["logprobs"][0]["top"][0]["token_id"], 9);
  EXPECT_EQ((*json)["usage"]["completion_tokens"], 1);
}

TEST(CliOutputTest, DescribesTheModel) {
  v1::GetModelInfoResponse info;
  info.set_model("demo");
  info.mutable_shape()->set_num_experts(16);
  info.add_eos_token_ids(2);
  v1::GetLoadResponse load;
  load.set_draining(true);
  EXPECT_THAT(Describe(info, load), HasSubstr("demo"));
  EXPECT_THAT(Describe(info, load), HasSubstr("shutting down"));
  const auto json = ParseJson(ToJson(info, load), "info");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["shape"]["num_experts"], 16);
  EXPECT_EQ((*json)["eos_token_ids"][0], 2);
}

}  // namespace
}  // namespace moesaic::cli
