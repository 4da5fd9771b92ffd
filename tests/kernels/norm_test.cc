#include "kernels/norm.h"

#include <cmath>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "tests/kernels/tensor.h"

namespace moesaic::kernels {
namespace {

class RmsNormTest : public testing::TestWithParam<std::tuple<Isa, DType>> {
 protected:
  Tensor Run(const std::vector<float>& input,
             const std::vector<float>& weight,
             const std::vector<int32_t>& row_index,
             int64_t rows,
             int threads) {
    Tensor output(dtype_, rows * weight.size());
    RmsNormArgs args;
    args.rows = rows;
    args.dim = static_cast<int64_t>(weight.size());
    args.eps = 1e-6f;
    args.input = input.data();
    args.row_index = row_index.empty() ? nullptr : row_index.data();
    args.weight = weight.data();
    args.output_dtype = dtype_;
    args.output = output.data();
    ThreadPool pool(threads);
    Stream stream;
    stream.pool = &pool;
    kernels_.rms_norm(args, stream);
    return output;
  }

  const KernelTable& kernels_ = CpuKernels(std::get<0>(GetParam()));
  const DType dtype_ = std::get<1>(GetParam());
};

TEST_P(RmsNormTest, MatchesTheDefinition) {
  std::mt19937 random(1);
  // float32: the mean of squares and three roundings after it, some 2^-22 together.
  const double relative = dtype_ == DType::kBFloat16 ? 0x1p-8 : 0x1p-21;
  for (int64_t dim : {1, 3, 4, 15, 16, 17, 64, 100, 768, 2048, 4100}) {
    const std::vector<float> input = RandomNormal(random, 3 * dim, 3.0f);
    const std::vector<float> weight = RandomNormal(random, dim);
    const Tensor output = Run(input, weight, {}, 3, 1);
    for (int64_t row = 0; row < 3; ++row) {
      double squares = 0;
      for (int64_t i = 0; i < dim; ++i) {
        squares += static_cast<double>(input[row * dim + i]) * input[row * dim + i];
      }
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-6);
      for (int64_t i = 0; i < dim; ++i) {
        const double expected = input[row * dim + i] * inverse * weight[i];
        ASSERT_NEAR(output.Get(row * dim + i), expected, relative * std::abs(expected) + 1e-30)
            << "dim " << dim << " element " << i;
      }
    }
  }
}

TEST_P(RmsNormTest, GathersRowsAndKeepsTheirBitsInAnyBatch) {
  std::mt19937 random(2);
  const int64_t dim = 300;
  const std::vector<float> input = RandomNormal(random, 500 * dim);
  const std::vector<float> weight = RandomNormal(random, dim);
  const Tensor all = Run(input, weight, {}, 500, 3);
  const std::vector<int32_t> rows = {499, 0, 250, 250, 7};
  const Tensor gathered = Run(input, weight, rows, 5, 1);
  for (size_t r = 0; r < rows.size(); ++r) {
    for (int64_t i = 0; i < dim; ++i) {
      ASSERT_EQ(gathered.Get(r * dim + i), all.Get(rows[r] * dim + i));
    }
  }
}

TEST_P(RmsNormTest, ZeroRowsStayZero) {
  const std::vector<float> input(20, 0.0f);
  const std::vector<float> weight(20, 2.0f);
  const Tensor output = Run(input, weight, {}, 1, 1);
  for (size_t i = 0; i < output.size(); ++i) EXPECT_EQ(output.Get(i), 0.0f);
}

INSTANTIATE_TEST_SUITE_P(Isas,
                         RmsNormTest,
                         testing::Combine(testing::ValuesIn(SupportedIsas()),
                                          testing::Values(DType::kFloat32, DType::kBFloat16)),
                         IsaDTypeTestName);

}  // namespace
}  // namespace moesaic::kernels
