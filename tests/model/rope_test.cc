#include "model/rope.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace moesaic {
namespace {

using testing::HasSubstr;
using testing::Pointwise;

constexpr double kDefaultTheta = 10000.0;
constexpr int32_t kHeadDim = 16;
constexpr int32_t kMaxPositions = 512;

absl::StatusOr<RopeFrequencies> Read(std::string_view config) {
  return ReadRope(*ParseJson(config, "t"), kDefaultTheta, kHeadDim, kMaxPositions);
}

MATCHER(IsWithinTwoUlp, "") {
  const auto [actual, expected] = arg;
  return std::abs(actual - expected) <= 2.4e-7 * std::abs(expected);
}

struct Reference {
  const char* config;
  std::vector<double> inverse_frequencies;
  float attention_factor;
};

class RopeReference : public testing::TestWithParam<Reference> {};

// Values printed by transformers 5.23 (Qwen3MoeRotaryEmbedding: inv_freq, attention_scaling).
TEST_P(RopeReference, MatchesTransformers) {
  const auto rope = Read(GetParam().config);
  ASSERT_TRUE(rope.ok()) << rope.status();
  EXPECT_THAT(rope->inverse_frequencies,
              Pointwise(IsWithinTwoUlp(), GetParam().inverse_frequencies));
  EXPECT_FLOAT_EQ(rope->attention_factor, GetParam().attention_factor);
}

const std::vector<double> kDefault1e6 = {1.0,
                                         0.17782793939113617,
                                         0.03162277862429619,
                                         0.005623413249850273,
                                         0.0010000000474974513,
                                         0.00017782794020604342,
                                         3.162277425872162e-05,
                                         5.62341347176698e-06};
const std::vector<double> kLinear4 = {0.25,
                                      0.07905694097280502,
                                      0.02500000037252903,
                                      0.007905694656074047,
                                      0.0024999999441206455,
                                      0.0007905694656074047,
                                      0.0002500000118743628,
                                      7.905694656074047e-05};
const std::vector<double> kLlama3 = {1.0,
                                     0.07940301299095154,
                                     0.004700753837823868,
                                     0.0009115831344388425,
                                     0.00017677668074611574,
                                     3.428102354519069e-05,
                                     6.647869668086059e-06,
                                     1.289173155782919e-06};
const std::vector<double> kYarn4 = {1.0,
                                    0.23717081546783447,
                                    0.04999999701976776,
                                    0.007905694656074047,
                                    0.0024999999441206455,
                                    0.0007905694656074047,
                                    0.0002500000118743628,
                                    7.905694656074047e-05};
const std::vector<double> kYarnMscale = {1.0,
                                         0.28740859031677246,
                                         0.04244179651141167,
                                         0.0039528473280370235,
                                         0.0012499999720603228,
                                         0.00039528473280370235,
                                         0.0001250000059371814,
                                         3.9528473280370235e-05};

INSTANTIATE_TEST_SUITE_P(
    Types,
    RopeReference,
    testing::Values(
        Reference{R"({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})",
                  kDefault1e6, 1.0f},
        Reference{R"({"rope_theta": 1000000})", kDefault1e6, 1.0f},
        Reference{R"({"rope_theta": 1e6, "rope_scaling": null})", kDefault1e6, 1.0f},
        Reference{R"({"rope_parameters": {"rope_type": "linear", "factor": 4.0}})", kLinear4, 1.0f},
        Reference{R"({"rope_theta": 10000, "rope_scaling": {"type": "linear", "factor": 4}})",
                  kLinear4, 1.0f},
        Reference{R"({"rope_scaling": {"rope_type": "linear", "factor": 4},
                      "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})",
                  kLinear4, 1.0f},
        Reference{R"({"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0,
                      "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 64}})",
                  kLlama3, 1.0f},
        Reference{R"({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                      "original_max_position_embeddings": 128}})",
                  kYarn4, 1.138629436111989f},
        Reference{R"({"rope_parameters": {"rope_type": "yarn", "factor": null,
                      "original_max_position_embeddings": 128}})",
                  kYarn4, 1.138629436111989f},
        Reference{R"({"rope_parameters": {"rope_type": "yarn", "factor": 8,
                      "original_max_position_embeddings": 256, "mscale": 1.5,
                      "mscale_all_dim": 0.8, "beta_fast": 16, "beta_slow": 2,
                      "truncate": false}})",
                  kYarnMscale, 1.1247997972877235f}));

TEST(ReadRope, AttentionFactorMayBeGiven) {
  const auto rope = Read(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0,
      "original_max_position_embeddings": 128, "attention_factor": 1.5}})");
  ASSERT_TRUE(rope.ok()) << rope.status();
  EXPECT_EQ(rope->attention_factor, 1.5f);
  EXPECT_THAT(rope->inverse_frequencies, Pointwise(IsWithinTwoUlp(), kYarn4));
}

TEST(ReadRope, TopLevelOriginalPositionsComeFirst) {
  const auto rope = Read(R"({"original_max_position_embeddings": 128, "rope_scaling":
      {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}})");
  ASSERT_TRUE(rope.ok()) << rope.status();
  EXPECT_THAT(rope->inverse_frequencies, Pointwise(IsWithinTwoUlp(), kYarn4));
}

TEST(ReadRope, RefusedConfigs) {
  const auto expect = [](const char* config, absl::StatusCode code, const char* problem) {
    const auto rope = Read(config);
    EXPECT_EQ(rope.status().code(), code) << config << rope.status();
    EXPECT_THAT(std::string(rope.status().message()), HasSubstr(problem));
  };
  using enum absl::StatusCode;
  expect(R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2}})", kUnimplemented,
         "\"rope_type\" is \"dynamic\"");
  expect(R"({"rope_scaling": {"rope_type": "longrope"}})", kUnimplemented, "longrope");
  expect(R"({"partial_rotary_factor": 0.5})", kUnimplemented, "partial_rotary_factor");
  expect(R"({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}})", kUnimplemented,
         "full_attention");
  expect(R"({"rope_scaling": 2})", kInvalidArgument, "\"rope_scaling\" is not an object");
  expect(R"({"rope_scaling": {"rope_type": 1}})", kInvalidArgument, "rope_type");
  expect(R"({"rope_scaling": {"rope_type": "linear"}})", kInvalidArgument, "factor");
  expect(R"({"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 128}})",
         kInvalidArgument, "\"factor\"");
  expect(R"({"rope_scaling": {"rope_type": "linear", "factor": 0}})", kInvalidArgument, "factor");
  expect(R"({"rope_theta": -1})", kInvalidArgument, "rope_theta");
  expect(R"({"rope_theta": 1})", kInvalidArgument, "rope_theta");
  expect(R"({"rope_theta": "x"})", kInvalidArgument, "rope_theta");
  expect(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
             "high_freq_factor": 1}})",
         kInvalidArgument, "high_freq_factor");
}

}  // namespace
}  // namespace moesaic
