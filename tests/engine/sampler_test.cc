#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/isa.h"
#include "kernels/kernel_table.h"

namespace moesaic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(int32_t vocab_size, uint32_t seed, float deviation = 2.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(vocab_size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// The distribution that the parameters define, by a full sort in double.
std::vector<double> Expected(const std::vector<float>& logits, const SamplingParams& params) {
  const size_t size = logits.size();
  const float max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> probability(size);
  for (size_t i = 0; i < size; ++i) {
    probability[i] = std::exp((double{logits[i]} - max) / params.temperature);
    if (probability[i] < params.min_p) probability[i] = 0;
  }
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return probability[a] > probability[b]; });
  if (params.top_k > 0) {
    for (size_t i = static_cast<size_t>(params.top_k); i < size; ++i) probability[order[i]] = 0;
  }
  double total = std::accumulate(probability.begin(), probability.end(), 0.0);
  double before = 0;
  for (size_t i : order) {
    const double own = probability[i];
    if (before >= total * params.top_p) probability[i] = 0;
    before += own;
  }
  total = std::accumulate(probability.begin(), probability.end(), 0.0);
  for (double& p : probability) p /= total;
  return probability;
}

class SamplerTest : public testing::Test {
 protected:
  int32_t Draw(Sampler& sampler,
               const std::vector<float>& logits,
               const SamplingParams& params,
               uint64_t seed,
               int32_t position = 0) {
    const auto token = sampler.Sample(
        logits,
        {.params = params, .seed = seed, .output_tokens = position, .token_uses = no_uses_});
    EXPECT_TRUE(token.ok()) << token.status().ToString();
    return token.value_or(-1);
  }

  // Draws `count` tokens and compares their frequencies with `expected`.
  void ExpectDistribution(const std::vector<float>& logits,
                          const SamplingParams& params,
                          const std::vector<double>& expected) {
    constexpr int kDraws = 20000;
    Sampler sampler(kernels_, static_cast<int32_t>(logits.size()), {});
    std::vector<int> counts(logits.size(), 0);
    for (int i = 0; i < kDraws; ++i) ++counts[Draw(sampler, logits, params, 99, i)];
    // Tokens too rare for the test are pooled.
    double chi_squared = 0;
    double rare_expected = 0;
    double rare_count = 0;
    int cells = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      const double mean = expected[i] * kDraws;
      if (mean == 0) {
        EXPECT_EQ(counts[i], 0) << "token " << i << " is excluded";
      } else if (mean < 10) {
        rare_expected += mean;
        rare_count += counts[i];
      } else {
        chi_squared += (counts[i] - mean) * (counts[i] - mean) / mean;
        ++cells;
      }
    }
    if (rare_expected > 10) {
      chi_squared += (rare_count - rare_expected) * (rare_count - rare_expected) / rare_expected;
      ++cells;
    }
    // Mean and deviation of chi squared; the draws are fixed by the seed, so this never flickers.
    const double freedom = std::max(1, cells - 1);
    EXPECT_LT(chi_squared, freedom + 4 * std::sqrt(2 * freedom) + 4);
  }

  const kernels::KernelTable& kernels_ = kernels::CpuKernels(DetectIsa());
  const TokenUseMap no_uses_;
};

TEST_F(SamplerTest, GreedyTakesTheLargestAndOfEqualOnesTheFirst) {
  Sampler sampler(kernels_, 5, {});
  SamplingParams params;
  params.temperature = 0;
  EXPECT_EQ(Draw(sampler, {1, 3, 2, 3, 0}, params, 1), 1);
  params.temperature = 1e-6f;
  EXPECT_EQ(Draw(sampler, {-1, -3, -2, -0.5f, -4}, params, 1), 3);
}

TEST_F(SamplerTest, FrequenciesAreThoseOfTheParameters) {
  struct Case {
    float temperature = 1.0f;
    int32_t top_k = 0;
    float top_p = 1.0f;
    float min_p = 0.0f;
  };
  for (const Case& c :
       {Case{}, Case{.temperature = 0.5f}, Case{.temperature = 2.0f}, Case{.top_k = 1},
        Case{.top_k = 7}, Case{.top_k = 5000}, Case{.top_p = 0.9f}, Case{.top_p = 0.05f},
        Case{.top_p = 1e-6f}, Case{.min_p = 0.1f}, Case{.min_p = 1.0f},
        Case{.temperature = 0.7f, .top_k = 40, .top_p = 0.8f, .min_p = 0.02f},
        Case{.temperature = 1.5f, .top_k = 200, .top_p = 0.95f}}) {
    SCOPED_TRACE(testing::Message() << "temperature " << c.temperature << " top_k " << c.top_k
                                    << " top_p " << c.top_p << " min_p " << c.min_p);
    SamplingParams params;
    params.temperature = c.temperature;
    params.top_k = c.top_k;
    params.top_p = c.top_p;
    params.min_p = c.min_p;
    const std::vector<float> logits = RandomLogits(1100, 5);
    ExpectDistribution(logits, params, Expected(logits, params));
  }
}

// Which tokens remain, exactly, where many are equal and where the selection needs many runs.
TEST_F(SamplerTest, SelectionBreaksTiesByTheLowerId) {
  Sampler sampler(kernels_, 1000, {});
  std::vector<float> logits(1000, 0.0f);
  SamplingParams params;
  params.top_k = 3;
  std::set<int32_t> seen;
  for (int i = 0; i < 200; ++i) seen.insert(Draw(sampler, logits, params, 1, i));
  EXPECT_EQ(seen, (std::set<int32_t>{0, 1, 2}));

  params.top_k = 0;
  params.top_p = 0.25f;
  seen.clear();
  for (int i = 0; i < 20000; ++i) seen.insert(Draw(sampler, logits, params, 1, i));
  EXPECT_EQ(seen.size(), 250u);
  EXPECT_EQ(*seen.rbegin(), 249);

  // The k-th place is shared by a token that comes late.
  logits.assign(1000, -1.0f);
  logits[999] = logits[500] = logits[3] = 1.0f;
  params.top_p = 1.0f;
  params.top_k = 2;
  seen.clear();
  for (int i = 0; i < 200; ++i) seen.insert(Draw(sampler, logits, params, 1, i));
  EXPECT_EQ(seen, (std::set<int32_t>{3, 500}));
}

TEST_F(SamplerTest, ADrawDependsOnSeedAndPositionAlone) {
  const std::vector<float> logits = RandomLogits(500, 8);
  SamplingParams params;
  params.top_p = 0.95f;
  Sampler a(kernels_, 500, {});
  Sampler b(kernels_, 500, {});
  std::vector<int32_t> forward;
  for (int i = 0; i < 50; ++i) forward.push_back(Draw(a, logits, params, 7, i));
  for (int i = 49; i >= 0; --i) {
    Draw(b, RandomLogits(500, 9), params, 1, i);  // somebody else in between
    EXPECT_EQ(Draw(b, logits, params, 7, i), forward[i]);
  }
  std::set<int32_t> other_seed;
  int different = 0;
  for (int i = 0; i < 50; ++i) different += Draw(a, logits, params, 8, i) != forward[i];
  EXPECT_GT(different, 10);
}

TEST_F(SamplerTest, PenaltiesChangeTheChoice) {
  Sampler sampler(kernels_, 4, {});
  SamplingParams params;
  params.temperature = 0;
  params.repetition_penalty = 1.5f;
  const TokenUseMap uses = {{2, {.output_count = 1}}};
  const auto token =
      sampler.Sample(std::vector<float>{1, 2, 2.5f, 0},
                     {.params = params, .seed = 0, .output_tokens = 1, .token_uses = uses});
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(*token, 1);
}

TEST_F(SamplerTest, MaskedTokensAreNeverDrawn) {
  Sampler sampler(kernels_, 4, {2});
  SamplingParams params;
  params.min_tokens = 10;
  params.stop_token_ids = {0};
  for (int i = 0; i < 10; ++i) {
    const int32_t token = Draw(sampler, {50, 1, 60, 1}, params, 3, i);
    EXPECT_TRUE(token == 1 || token == 3) << token;
  }
}

TEST_F(SamplerTest, LogitsWithoutAChoiceAreAnError) {
  Sampler sampler(kernels_, 2, {0, 1});
  SamplingParams params;
  const auto code = [&](std::vector<float> logits) {
    return sampler
        .Sample(logits, {.params = params, .seed = 0, .output_tokens = 0, .token_uses = no_uses_})
        .status()
        .code();
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(code({kNan, kNan}), absl::StatusCode::kInternal);
  EXPECT_EQ(code({1, kInfinity}), absl::StatusCode::kInternal);
  EXPECT_EQ(code({-kInfinity, -kInfinity}), absl::StatusCode::kInternal);
  params.min_tokens = 1;  // masks both
  EXPECT_EQ(code({1, 2}), absl::StatusCode::kInternal);
  params.temperature = 0;
  EXPECT_EQ(code({1, 2}), absl::StatusCode::kInternal);
}

TEST_F(SamplerTest, ExtremeParametersGiveATokenOfTheVocabulary) {
  const std::vector<float> logits = RandomLogits(300, 4, 50.0f);
  Sampler sampler(kernels_, 300, {});
  for (float temperature : {1e-4f, 1.0f, 1e30f}) {
    for (float top_p : {1e-30f, 0.5f, 1.0f}) {
      for (int32_t top_k : {0, 1, 299, 300, 2147483647}) {
        SamplingParams params;
        params.temperature = temperature;
        params.top_p = top_p;
        params.top_k = top_k;
        for (int i = 0; i < 20; ++i) {
          const int32_t token = Draw(sampler, logits, params, 5, i);
          EXPECT_GE(token, 0);
          EXPECT_LT(token, 300);
        }
      }
    }
  }
}

TEST_F(SamplerTest, StopTokens) {
  Sampler sampler(kernels_, 10, {7, 8});
  SamplingParams params;
  params.stop_token_ids = {3};
  EXPECT_TRUE(sampler.IsStopToken(params, 3));
  EXPECT_TRUE(sampler.IsStopToken(params, 8));
  EXPECT_FALSE(sampler.IsStopToken(params, 1));
  params.ignore_eos = true;
  EXPECT_TRUE(sampler.IsStopToken(params, 3));
  EXPECT_FALSE(sampler.IsStopToken(params, 8));
}

}  // namespace
}  // namespace moesaic
