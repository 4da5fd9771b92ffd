#include "kernels/gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "tests/kernels/tensor.h"

namespace moesaic::kernels {
namespace {

struct Choice {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

class GateTest : public testing::TestWithParam<Isa> {
 protected:
  Choice Run(const std::vector<float>& logits,
             int64_t num_experts,
             int64_t top_k,
             bool renormalize,
             int threads = 1) {
    const int64_t rows = static_cast<int64_t>(logits.size()) / num_experts;
    Choice choice = {std::vector<int32_t>(rows * top_k), std::vector<float>(rows * top_k)};
    GateTopKArgs args;
    args.rows = rows;
    args.num_experts = num_experts;
    args.top_k = top_k;
    args.renormalize = renormalize;
    args.logits = logits.data();
    args.experts = choice.experts.data();
    args.weights = choice.weights.data();
    ThreadPool pool(threads);
    Stream stream;
    stream.pool = &pool;
    kernels_.gate_top_k(args, stream);
    return choice;
  }

  const KernelTable& kernels_ = CpuKernels(GetParam());
};

TEST_P(GateTest, TopKMatchesAStableSortOfTheSoftmax) {
  std::mt19937 random(1);
  for (auto [num_experts, top_k] : {std::pair{1, 1},
                                    {2, 2},
                                    {7, 3},
                                    {8, 2},
                                    {16, 4},
                                    {17, 17},
                                    {60, 4},
                                    {64, 8},
                                    {128, 8},
                                    {512, 22}}) {
    for (bool renormalize : {false, true}) {
      std::vector<float> logits = RandomNormal(random, 20 * num_experts, 3.0f);
      // Ties: some logits equal their neighbours.
      for (size_t i = 1; i < logits.size(); i += 3) logits[i] = logits[i - 1];
      const Choice choice = Run(logits, num_experts, top_k, renormalize);
      for (int64_t row = 0; row < 20; ++row) {
        const float* x = logits.data() + row * num_experts;
        std::vector<int32_t> order(num_experts);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return x[a] > x[b]; });
        double sum = 0;
        for (int64_t e = 0; e < num_experts; ++e) {
          if (!renormalize ||
              std::find(order.begin(), order.begin() + top_k, e) != order.begin() + top_k) {
            sum += std::exp(static_cast<double>(x[e]) - x[order[0]]);
          }
        }
        for (int64_t k = 0; k < top_k; ++k) {
          ASSERT_EQ(choice.experts[row * top_k + k], order[k]);
          const double expected = std::exp(static_cast<double>(x[order[k]]) - x[order[0]]) / sum;
          // A few roundings of the difference of logits (below 32), the exponential and the sum.
          ASSERT_NEAR(choice.weights[row * top_k + k], expected, 4e-6 * expected);
        }
      }
    }
  }
}

TEST_P(GateTest, RowsKeepTheirBitsInAnyBatch) {
  std::mt19937 random(2);
  const std::vector<float> logits = RandomNormal(random, 2000 * 64);
  const Choice all = Run(logits, 64, 8, true, /*threads=*/3);
  for (int64_t row : {0, 1, 777, 1999}) {
    const Choice one =
        Run({logits.begin() + row * 64, logits.begin() + (row + 1) * 64}, 64, 8, true);
    for (int64_t k = 0; k < 8; ++k) {
      EXPECT_EQ(one.experts[k], all.experts[row * 8 + k]);
      EXPECT_EQ(one.weights[k], all.weights[row * 8 + k]);
    }
  }
}

TEST_P(GateTest, NotANumberNeverGivesAnInvalidOrRepeatedExpert) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (float bad : {nan, -infinity, infinity}) {
    for (int bad_logits : {1, 9, 12}) {
      std::vector<float> logits(12, 0.5f);
      std::fill_n(logits.begin(), bad_logits, bad);
      const Choice choice = Run(logits, 12, 5, true);
      for (int32_t expert : choice.experts) {
        EXPECT_GE(expert, 0);
        EXPECT_LT(expert, 12);
      }
      EXPECT_EQ(std::set<int32_t>(choice.experts.begin(), choice.experts.end()).size(), 5u);
    }
  }
}

TEST_P(GateTest, SigmoidMatchesTheDefinitionAndSaturates) {
  std::vector<float> values;
  for (float x = -100.0f; x <= 100.0f; x += 0.37f) values.push_back(x);
  const std::vector<float> inputs = values;
  SigmoidArgs args;
  args.count = static_cast<int64_t>(values.size());
  args.values = values.data();
  Stream stream;
  kernels_.sigmoid(args, stream);
  for (size_t i = 0; i < values.size(); ++i) {
    const double expected = 1 / (1 + std::exp(-static_cast<double>(inputs[i])));
    // Below 1e-37 the exponential is held at its largest finite value.
    EXPECT_NEAR(values[i], expected, 5e-7 * expected + 1e-37) << inputs[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, GateTest, testing::ValuesIn(SupportedIsas()), IsaTestName);

}  // namespace
}  // namespace moesaic::kernels
