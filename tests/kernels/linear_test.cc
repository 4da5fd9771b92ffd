#include "kernels/linear.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include <gtest/gtest.h>

#include "base/str_cat.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "tests/kernels/kernel_test_util.h"

namespace moesaic::kernels {
namespace {

struct Case {
  Isa isa;
  DType dtype;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (Isa isa : SupportedIsas()) {
    cases.push_back({isa, DType::kFloat32});
    cases.push_back({isa, DType::kBFloat16});
  }
  return cases;
}

class LinearTest : public testing::TestWithParam<Case> {
 protected:
  const KernelTable& kernels() const { return CpuKernels(GetParam().isa); }

  std::vector<std::byte> Pack(const Operand& weight, LinearShape shape) const {
    std::vector<std::byte> packed(kernels().packed_linear_bytes(weight.dtype, shape));
    kernels().pack_linear(weight.dtype, shape, weight.data.data(), 0, shape.out_features,
                          packed.data());
    return packed;
  }

  std::vector<float> Run(const Operand& input,
                         const std::vector<std::byte>& weight,
                         LinearShape shape,
                         const float* bias,
                         int threads) const {
    ThreadPool pool(threads);
    Stream stream{&pool};
    LinearArgs args;
    args.dtype = input.dtype;
    args.shape = shape;
    args.rows = static_cast<int64_t>(input.values.size()) / shape.in_features;
    args.input = input.data.data();
    args.weight = weight.data();
    args.bias = bias;
    std::vector<float> output(args.rows * shape.out_features, NAN);
    args.output = output.data();
    kernels().linear(args, stream);
    return output;
  }
};

// The reference sums in float64. A float32 sum of K products whose absolute values add up to A
// differs from it by at most K * 2^-24 * A; half of that plus the last rounding is never reached by
// random signs.
void ExpectNear(const std::vector<float>& output,
                const Operand& input,
                const Operand& weight,
                LinearShape shape,
                const float* bias) {
  const int64_t rows = static_cast<int64_t>(input.values.size()) / shape.in_features;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < shape.out_features; ++c) {
      double sum = bias == nullptr ? 0.0 : bias[c];
      double magnitude = std::abs(sum);
      for (int64_t k = 0; k < shape.in_features; ++k) {
        const double product = static_cast<double>(input.values[r * shape.in_features + k]) *
                               weight.values[c * shape.in_features + k];
        sum += product;
        magnitude += std::abs(product);
      }
      const double tolerance = (0.5 * shape.in_features + 1.0) * 0x1p-24 * magnitude;
      ASSERT_NEAR(output[r * shape.out_features + c], sum, tolerance)
          << "row " << r << " column " << c << " of " << rows << " x " << shape.out_features
          << " x " << shape.in_features;
    }
  }
}

TEST_P(LinearTest, MatchesFloat64OnEdgeAndRealShapes) {
  struct Size {
    int64_t rows, out, in;
  };
  for (const Size& size :
       {Size{0, 40, 8}, Size{1, 1, 1}, Size{2, 5, 3}, Size{3, 16, 8}, Size{13, 17, 31},
        Size{1, 48, 64}, Size{7, 100, 129}, Size{25, 33, 2}, Size{16, 64, 1024}, Size{5, 96, 2048},
        Size{14, 40, 2051}, Size{1, 1536, 1024}, Size{3, 60, 4096}}) {
    const LinearShape shape = {size.out, size.in};
    const Operand input(GetParam().dtype, RandomValues(size.rows * size.in, 1.0f, 1));
    const Operand weight(GetParam().dtype, RandomValues(size.out * size.in, 0.1f, 2));
    const std::vector<float> bias = RandomValues(size.out, 1.0f, 3);
    const std::vector<std::byte> packed = Pack(weight, shape);
    EXPECT_EQ(packed.size() % 64, 0u);
    ExpectNear(Run(input, packed, shape, nullptr, 2), input, weight, shape, nullptr);
    ExpectNear(Run(input, packed, shape, bias.data(), 1), input, weight, shape, bias.data());
  }
}

TEST_P(LinearTest, RowsKeepTheirBitsInAnyBatchAndOnAnyThreads) {
  for (const LinearShape shape : {LinearShape{80, 1024}, LinearShape{50, 4103}}) {
    const int64_t rows = 200;
    const Operand input(GetParam().dtype, RandomValues(rows * shape.in_features, 1.0f, 4));
    const Operand weight(GetParam().dtype,
                         RandomValues(shape.out_features * shape.in_features, 0.1f, 5));
    const std::vector<std::byte> packed = Pack(weight, shape);
    std::vector<float> alone;
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> row =
          Run(input.Rows(r, 1, shape.in_features), packed, shape, nullptr, 1);
      alone.insert(alone.end(), row.begin(), row.end());
    }
    for (int64_t batch : {2, 3, 7, 16, 64, 65, 200}) {
      for (int threads : {1, 2, 3}) {
        for (int64_t first : {int64_t{0}, rows - batch}) {
          const std::vector<float> output =
              Run(input.Rows(first, batch, shape.in_features), packed, shape, nullptr, threads);
          ASSERT_EQ(std::memcmp(output.data(), alone.data() + first * shape.out_features,
                                output.size() * sizeof(float)),
                    0)
              << batch << " rows, " << threads << " threads";
        }
      }
    }
  }
}

TEST_P(LinearTest, AccumulatesOntoTheOutput) {
  const LinearShape shape = {37, 65};
  const Operand input(GetParam().dtype, RandomValues(3 * 65, 1.0f, 6));
  const Operand weight(GetParam().dtype, RandomValues(37 * 65, 0.1f, 7));
  const std::vector<std::byte> packed = Pack(weight, shape);
  const std::vector<float> product = Run(input, packed, shape, nullptr, 1);

  ThreadPool pool(2);
  Stream stream{&pool};
  std::vector<float> output = RandomValues(3 * 37, 1.0f, 8);
  const std::vector<float> before = output;
  kernels().linear({.dtype = input.dtype,
                    .shape = shape,
                    .rows = 3,
                    .input = input.data.data(),
                    .weight = packed.data(),
                    .output = output.data(),
                    .accumulate = true},
                   stream);
  for (size_t i = 0; i < output.size(); ++i) EXPECT_EQ(output[i], before[i] + product[i]);
}

TEST_P(LinearTest, PackingInRangesGivesTheSameBytes) {
  const LinearShape shape = {200, 33};
  const Operand weight(GetParam().dtype, RandomValues(200 * 33, 0.1f, 9));
  const std::vector<std::byte> whole = Pack(weight, shape);
  std::vector<std::byte> packed(whole.size(), std::byte{0xff});
  for (int64_t first : {128, 0, 64, 192}) {
    const int64_t count = std::min<int64_t>(64, 200 - first);
    kernels().pack_linear(weight.dtype, shape,
                          weight.data.data() + first * 33 * DTypeBytes(weight.dtype), first, count,
                          packed.data());
  }
  EXPECT_EQ(packed, whole);
}

TEST_P(LinearTest, EmbeddingReadsRowMajorAndPackedTables) {
  const LinearShape shape = {83, 21};
  const Operand table(GetParam().dtype, RandomValues(83 * 21, 1.0f, 10));
  const std::vector<std::byte> packed = Pack(table, shape);
  std::vector<int32_t> tokens(83);
  std::iota(tokens.rbegin(), tokens.rend(), 0);
  ThreadPool pool(2);
  Stream stream{&pool};
  for (bool use_packed : {false, true}) {
    std::vector<float> output(83 * 21);
    kernels().embedding({.dtype = table.dtype,
                         .shape = shape,
                         .packed = use_packed,
                         .table = use_packed ? packed.data() : table.data.data(),
                         .rows = 83,
                         .tokens = tokens.data(),
                         .output = output.data()},
                        stream);
    for (int64_t r = 0; r < 83; ++r) {
      for (int64_t k = 0; k < 21; ++k) {
        ASSERT_EQ(output[r * 21 + k], table.values[tokens[r] * 21 + k]) << r << " " << k;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Isas, LinearTest, testing::ValuesIn(Cases()), [](const testing::TestParamInfo<Case>& param) {
      return StrCat(IsaName(param.param.isa), "_", DTypeName(param.param.dtype));
    });

}  // namespace
}  // namespace moesaic::kernels
