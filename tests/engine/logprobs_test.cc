#include "engine/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/isa.h"
#include "kernels/kernel_table.h"

namespace moesaic {
namespace {

TokenOutput Compute(const std::vector<float>& logits, int32_t token, int32_t top_n) {
  TokenOutput output;
  output.token = token;
  ComputeLogprobs(logits, top_n, kernels::CpuKernels(DetectIsa()), output);
  return output;
}

TEST(LogprobsTest, MatchesALogSoftmaxAndAFullSort) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 4);
  for (int32_t vocab_size : {1, 5, 64, 1000}) {
    std::vector<float> logits(vocab_size);
    for (float& logit : logits) logit = std::round(normal(random) * 4) / 4;  // with equal ones
    double sum = 0;
    for (float logit : logits) sum += std::exp(double{logit});
    std::vector<int32_t> order(vocab_size);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    for (int32_t top_n : {0, 1, 3, 20}) {
      const int32_t rank = std::min(vocab_size, 7);
      const TokenOutput output = Compute(logits, order[rank - 1], top_n);
      EXPECT_EQ(output.chosen.token, order[rank - 1]);
      EXPECT_EQ(output.chosen.rank, rank);
      EXPECT_NEAR(output.chosen.logprob, logits[order[rank - 1]] - std::log(sum), 1e-5);
      ASSERT_EQ(output.top.size(), static_cast<size_t>(std::min(top_n, vocab_size)));
      for (size_t i = 0; i < output.top.size(); ++i) {
        EXPECT_EQ(output.top[i].token, order[i]);
        EXPECT_EQ(output.top[i].rank, static_cast<int32_t>(i) + 1);
        EXPECT_NEAR(output.top[i].logprob, logits[order[i]] - std::log(sum), 1e-5);
      }
    }
  }
}

TEST(LogprobsTest, LargeLogitsDoNotOverflow) {
  const TokenOutput output = Compute({1000.0f, 1000.0f, -1000.0f}, 1, 2);
  EXPECT_NEAR(output.chosen.logprob, -std::log(2.0), 1e-4);  // float32 next to 1000
  EXPECT_EQ(output.chosen.rank, 2);
}

}  // namespace
}  // namespace moesaic
