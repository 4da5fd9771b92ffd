#include "kernels/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/kernel_table.h"
#include "tests/kernels/kernel_test_util.h"

namespace moesaic::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kSizes[] = {1, 2, 15, 16, 17, 1000, 1024, 1025, 32000, 151936};

class LogitsTest : public testing::TestWithParam<Isa> {
 protected:
  const KernelTable& kernels() const { return CpuKernels(GetParam()); }
};

TEST_P(LogitsTest, ArgMaxTakesTheLowestIndexOfEqualMaxima) {
  for (int64_t size : kSizes) {
    std::vector<float> logits = RandomValues(size, 1.0f, static_cast<uint32_t>(size));
    for (int64_t first : {int64_t{0}, size / 2, size - 1}) {
      std::vector<float> tied = logits;
      tied[first] = 100.0f;
      for (int64_t later : {first + 1, first + 16, size - 1}) {
        if (later < size) tied[later] = 100.0f;
      }
      const MaxResult result = kernels().arg_max(tied.data(), size);
      EXPECT_EQ(result.value, 100.0f);
      EXPECT_EQ(result.index, first) << "of " << size;
    }
  }
}

TEST_P(LogitsTest, ArgMaxOfForbiddenAndBrokenLogits) {
  std::vector<float> logits(40, -kInfinity);
  logits[33] = -1e30f;
  EXPECT_EQ(kernels().arg_max(logits.data(), 40).index, 33);
  logits[3] = NAN;
  EXPECT_EQ(kernels().arg_max(logits.data(), 40).index, 33);
  std::fill(logits.begin(), logits.end(), NAN);
  EXPECT_EQ(kernels().arg_max(logits.data(), 40).index, 0);
}

TEST_P(LogitsTest, ExpIsExactToThreeUlp) {
  std::vector<float> logits;
  for (float x = -87.0f; x < 88.7f; x += 0.00371f) logits.push_back(x);
  std::vector<float> result(logits.size());
  kernels().exp_scaled(logits.data(), logits.size(), 0.0f, 1.0f, result.data());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double exact = std::exp(static_cast<double>(logits[i]));
    ASSERT_NEAR(result[i], exact, 3.0 * 0x1p-24 * exact) << logits[i];
  }
}

TEST_P(LogitsTest, ExpAtTheEndsOfItsRange) {
  const std::vector<float> logits = {-kInfinity, -1e30f, -88.0f, 0.0f, 89.0f, kInfinity, NAN};
  std::vector<float> result(logits.size());
  kernels().exp_scaled(logits.data(), logits.size(), 0.0f, 1.0f, result.data());
  EXPECT_EQ(result[0], 0.0f);
  EXPECT_EQ(result[1], 0.0f);
  EXPECT_EQ(result[2], 0.0f);  // below the smallest normal number
  EXPECT_EQ(result[3], 1.0f);
  EXPECT_EQ(result[4], kInfinity);
  EXPECT_EQ(result[5], kInfinity);
  EXPECT_TRUE(std::isnan(result[6]));
}

TEST_P(LogitsTest, LogSumExpMatchesFloat64) {
  for (int64_t size : kSizes) {
    std::vector<float> logits = RandomValues(size, 5.0f, static_cast<uint32_t>(size) + 1);
    logits[size / 3] = -kInfinity;
    if (size < 3) logits[0] = 2.0f;
    const float max = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (float x : logits) sum += std::exp(static_cast<double>(x));
    // Each exponential is off by 3 ulp and a block's sum by some; then one rounding to float32.
    const double exact = std::log(sum);
    EXPECT_NEAR(kernels().log_sum_exp(logits.data(), size, max), exact,
                1e-6 + 0x1p-23 * std::abs(exact))
        << size;
  }
}

TEST_P(LogitsTest, ExpScaledAppliesTheTemperatureAndSums) {
  for (int64_t size : kSizes) {
    const std::vector<float> logits = RandomValues(size, 3.0f, static_cast<uint32_t>(size) + 2);
    const float max = *std::max_element(logits.begin(), logits.end());
    std::vector<float> result(size + 1, -1.0f);
    const float sum = kernels().exp_scaled(logits.data(), size, max, 1.25f, result.data());
    EXPECT_EQ(result[size], -1.0f);  // nothing is written behind the end
    double exact_sum = 0.0;
    for (int64_t i = 0; i < size; ++i) {
      const double exact = std::exp((static_cast<double>(logits[i]) - max) * 1.25);
      exact_sum += exact;
      // The scaled difference is rounded twice, which a large one feels.
      ASSERT_NEAR(result[i], exact, 5e-6 * exact);
    }
    EXPECT_NEAR(sum, exact_sum, 2e-6 * exact_sum);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas,
                         LogitsTest,
                         testing::ValuesIn(SupportedIsas()),
                         [](const testing::TestParamInfo<Isa>& param) {
                           return std::string(IsaName(param.param));
                         });

}  // namespace
}  // namespace moesaic::kernels
