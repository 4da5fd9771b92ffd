#include "server/sampling_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(SamplingJsonTest, ReadsVllmsNames) {
  GenerationRequest request;
  const absl::Status status = ParseSamplingJson(
      R"({"n": 2, "temperature": 0.5, "top_k": -1, "top_p": 0.9, "min_p": 0.1,
          "repetition_penalty": 1.1, "presence_penalty": -1, "frequency_penalty": 1,
          "seed": 18446744073709551615, "stop": ["a", "b"], "stop_token_ids": [3],
          "ignore_eos": true, "include_stop_str_in_output": true, "skip_special_tokens": false,
          "max_tokens": 7, "min_tokens": 1, "logprobs": 3, "prompt_logprobs": 0,
          "add_special_tokens": false, "detokenize": true})",
      "sampling_parameters", request);
  ASSERT_TRUE(status.ok()) << status;
  const SamplingParams& params = request.params;
  EXPECT_EQ(params.n, 2);
  EXPECT_EQ(params.top_k, 0);
  EXPECT_EQ(params.seed, UINT64_MAX);
  EXPECT_THAT(params.stop, ElementsAre("a", "b"));
  EXPECT_THAT(params.stop_token_ids, ElementsAre(3));
  EXPECT_TRUE(params.ignore_eos);
  EXPECT_EQ(params.max_tokens, 7);
  EXPECT_TRUE(request.max_tokens_given);
  EXPECT_EQ(params.logprobs, 3);
  EXPECT_EQ(params.prompt_logprobs, 0);
  EXPECT_FALSE(request.encode.add_special_tokens);
  EXPECT_TRUE(request.detokenize_required);
}

TEST(SamplingJsonTest, TakesNumbersAndFlagsAsText) {
  GenerationRequest request;
  ASSERT_TRUE(ParseSamplingJson(
                  R"({"max_tokens": "12", "temperature": "0", "ignore_eos": "True", "stop": "x"})",
                  "p", request)
                  .ok());
  EXPECT_EQ(request.params.max_tokens, 12);
  EXPECT_EQ(request.params.temperature, 0.0f);
  EXPECT_TRUE(request.params.ignore_eos);
  EXPECT_THAT(request.params.stop, ElementsAre("x"));
}

TEST(SamplingJsonTest, NullLeavesTheDefault) {
  GenerationRequest request;
  request.params.temperature = 0.25f;
  ASSERT_TRUE(ParseSamplingJson(R"({"temperature": null, "seed": null})", "p", request).ok());
  EXPECT_EQ(request.params.temperature, 0.25f);
  EXPECT_FALSE(request.params.seed.has_value());
}

TEST(SamplingJsonTest, NamesWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"max_token": 1})", "max_token"},
      {R"({"max_tokens": 1.5})", "max_tokens"},
      {R"({"max_tokens": 4294967296})", "max_tokens"},
      {R"({"max_tokens": "many"})", "max_tokens"},
      {R"({"temperature": 1e300})", "temperature"},
      {R"({"temperature": "nan"})", "temperature"},
      {R"({"temperature": []})", "temperature"},
      {R"({"seed": -1})", "seed"},
      {R"({"stop": [1]})", "stop"},
      {R"({"stop_token_ids": 3})", "stop_token_ids"},
      {R"({"ignore_eos": 7})", "ignore_eos"},
      {R"([])", "object"},
      {R"({"n": 1, "n": 2})", "duplicate"},
      {"{\"n\": 1", "sampling_parameters"},
      {"{\"stop\": \"\xff\"}", "sampling_parameters"},
  };
  for (const auto& [json, expected] : cases) {
    GenerationRequest request;
    const absl::Status status = ParseSamplingJson(json, "sampling_parameters", request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected)) << json;
  }
}

}  // namespace
}  // namespace moesaic
