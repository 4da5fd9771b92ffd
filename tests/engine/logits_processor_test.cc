#include "engine/logits_processor.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(LogitsProcessorTest, DefaultsNeedNothing) {
  SamplingParams params;
  EXPECT_FALSE(NeedsTokenUses(params));
  EXPECT_FALSE(NeedsLogitsProcessors(params, 0));
  params.min_tokens = 2;
  EXPECT_TRUE(NeedsLogitsProcessors(params, 1));
  EXPECT_FALSE(NeedsLogitsProcessors(params, 2));
  params.presence_penalty = 0.5f;
  EXPECT_TRUE(NeedsLogitsProcessors(params, 2));
}

TEST(LogitsProcessorTest, PenaltiesFollowTheirDefinitions) {
  SamplingParams params;
  params.repetition_penalty = 2.0f;
  params.frequency_penalty = 0.25f;
  params.presence_penalty = 0.5f;
  const TokenUseMap uses = {{0, {.output_count = 0, .in_prompt = true}},
                            {1, {.output_count = 3, .in_prompt = false}},
                            {2, {.output_count = 1, .in_prompt = true}}};
  std::vector<float> logits = {4.0f, 4.0f, -4.0f, 4.0f};
  ApplyLogitsProcessors(params, {}, 4, uses, logits);
  EXPECT_EQ(logits, (std::vector<float>{2.0f, 2.0f - 0.75f - 0.5f, -8.0f - 0.25f - 0.5f, 4.0f}));
}

TEST(LogitsProcessorTest, ExtremePenaltiesStayFinite) {
  SamplingParams params;
  params.repetition_penalty = 1e-38f;
  const TokenUseMap uses = {{0, {.output_count = 1}}, {1, {.output_count = 1}}};
  std::vector<float> logits = {1e30f, -1e30f};
  ApplyLogitsProcessors(params, {}, 1, uses, logits);
  EXPECT_EQ(logits[0], std::numeric_limits<float>::max());
  EXPECT_TRUE(std::isfinite(logits[1]));
}

TEST(LogitsProcessorTest, StopIdsAreMaskedBeforeMinTokens) {
  SamplingParams params;
  params.min_tokens = 2;
  params.stop_token_ids = {1};
  const std::vector<int32_t> eos = {3};
  std::vector<float> logits = {1, 2, 3, 4};
  ApplyLogitsProcessors(params, eos, 1, {}, logits);
  EXPECT_EQ(logits, (std::vector<float>{1, -kInfinity, 3, -kInfinity}));

  params.ignore_eos = true;
  logits = {1, 2, 3, 4};
  ApplyLogitsProcessors(params, eos, 1, {}, logits);
  EXPECT_EQ(logits, (std::vector<float>{1, -kInfinity, 3, 4}));

  logits = {1, 2, 3, 4};
  ApplyLogitsProcessors(params, eos, 2, {}, logits);
  EXPECT_EQ(logits, (std::vector<float>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace moesaic
