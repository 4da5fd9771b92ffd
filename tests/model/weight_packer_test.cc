#include "model/weight_packer.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/checked_math.h"
#include "base/thread_pool.h"

namespace moesaic {
namespace {

WeightMatrix Generated(int64_t rows, int64_t cols, uint64_t seed) {
  WeightMatrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.seed = seed;
  matrix.deviation = 1.0f;
  return matrix;
}

std::vector<std::byte> Values(const WeightMatrix& matrix, DType dtype) {
  std::vector<std::byte> values(matrix.rows * matrix.cols * DTypeBytes(dtype));
  CopyWeights(matrix, 0, matrix.rows, 0, matrix.cols, dtype, values.data(), matrix.cols);
  return values;
}

std::string Bytes(const void* data, size_t size) {
  return std::string(static_cast<const char*>(data), size);
}

class WeightPackerTest : public testing::TestWithParam<DType> {
 protected:
  WeightPackerTest()
      : null_(std::fopen("/dev/null", "w")),
        progress_("test", uint64_t{1} << 40, ProgressUnit::kBytes, null_),
        packer_(kernels_, {.pool = &pool_}, GetParam(), nullptr, progress_) {}
  ~WeightPackerTest() override {
    progress_.Finish();
    std::fclose(null_);
  }

  // What one call of the kernel makes of row-major values.
  std::string PackedWhole(kernels::LinearShape shape, const std::vector<std::byte>& values) {
    std::string packed(kernels_.packed_linear_bytes(GetParam(), shape), '\0');
    kernels_.pack_linear(GetParam(), shape, values.data(), 0, shape.out_features, packed.data());
    return packed;
  }

  const kernels::KernelTable& kernels_ = kernels::CpuKernels(DetectIsa());
  ThreadPool pool_{2};
  std::FILE* null_;
  ProgressLine progress_;
  WeightPacker packer_;
};

TEST_P(WeightPackerTest, StackedPartsMakeOneLinear) {
  const std::vector<WeightMatrix> parts = {Generated(100, 48, 1), Generated(37, 48, 2),
                                           Generated(37, 48, 3)};
  std::vector<std::byte> values;
  for (const WeightMatrix& part : parts) {
    const std::vector<std::byte> rows = Values(part, GetParam());
    values.insert(values.end(), rows.begin(), rows.end());
  }
  PackedLinear linear{.shape = {.out_features = 174, .in_features = 48}};
  ASSERT_TRUE(packer_.PackLinear(parts, linear).ok());
  EXPECT_EQ(Bytes(linear.weight.data(), linear.weight.size()), PackedWhole(linear.shape, values));
}

TEST_P(WeightPackerTest, ALinearLargerThanTheMappedLimitIsPackedInParts) {
  const WeightMatrix matrix = Generated(40000, 1024, 4);  // 78 or 156 MiB
  PackedLinear linear{.shape = {.out_features = 40000, .in_features = 1024}};
  ASSERT_TRUE(packer_.PackLinear({&matrix, 1}, linear).ok());
  const std::vector<std::byte> values = Values(matrix, GetParam());
  EXPECT_TRUE(Bytes(linear.weight.data(), linear.weight.size()) ==
              PackedWhole(linear.shape, values));
  AlignedBuffer table;
  ASSERT_TRUE(packer_.PackTable(matrix, table).ok());
  EXPECT_TRUE(Bytes(table.data(), table.size()) == Bytes(values.data(), values.size()));
}

TEST_P(WeightPackerTest, EveryStripeOfEveryExpertIsPacked) {
  constexpr int64_t kHidden = 80;
  constexpr int64_t kUnits = 150;  // the last stripe of 64 has 22
  PackedExperts experts;
  experts.layout = {.units = kUnits, .units_per_stripe = 64, .num_stripes = 3};
  experts.stripe = {.dtype = GetParam(), .hidden = kHidden, .units = 64};
  experts.stripe_bytes = kernels_.packed_stripe_bytes(experts.stripe);
  experts.store_shape = {.num_layers = 2,
                         .num_experts = 4,
                         .stripes_per_expert = 3,
                         .slot_bytes = RoundUp<int64_t>(experts.stripe_bytes, 4096)};
  experts.store = *ExpertStore::Create(experts.store_shape);
  std::vector<ExpertMatrices> matrices;
  for (int i = 0; i < 4; ++i) {
    const uint64_t seed = 10 * i;
    matrices.push_back({Generated(kUnits, kHidden, seed), Generated(kUnits, kHidden, seed + 1),
                        Generated(kHidden, kUnits, seed + 2)});
  }
  ExpertStoreSink sink(experts.store);
  ASSERT_TRUE(packer_.PackExperts(matrices, /*layer=*/1, experts, sink).ok());

  const size_t element = DTypeBytes(GetParam());
  for (int32_t expert = 0; expert < 4; ++expert) {
    const std::vector<std::byte> gate = Values(matrices[expert].gate, GetParam());
    const std::vector<std::byte> up = Values(matrices[expert].up, GetParam());
    const std::vector<std::byte> down = Values(matrices[expert].down, GetParam());
    for (int32_t stripe = 0; stripe < 3; ++stripe) {
      const int64_t first = 64 * stripe;
      std::string expected(experts.stripe_bytes, '\0');
      kernels_.pack_stripe({.shape = experts.stripe,
                            .valid_units = std::min<int64_t>(64, kUnits - first),
                            .gate = gate.data() + first * kHidden * element,
                            .up = up.data() + first * kHidden * element,
                            .down = down.data() + first * element,
                            .down_stride = kUnits,
                            .packed = expected.data()});
      EXPECT_TRUE(Bytes(experts.store.Stripe({{1, expert}, stripe}), expected.size()) == expected)
          << "expert " << expert << " stripe " << stripe;
    }
  }
}

TEST_P(WeightPackerTest, VectorsAreJoinedInFloat32) {
  const std::vector<WeightMatrix> parts = {Generated(1, 5, 1), Generated(1, 3, 2)};
  AlignedBuffer vector;
  ASSERT_TRUE(packer_.PackVectors(parts, vector).ok());
  ASSERT_EQ(vector.size(), 8 * sizeof(float));
  std::vector<float> expected(8);
  CopyWeights(parts[0], 0, 1, 0, 5, DType::kFloat32, expected.data(), 5);
  CopyWeights(parts[1], 0, 1, 0, 3, DType::kFloat32, expected.data() + 5, 3);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), vector.as<float>()));
}

INSTANTIATE_TEST_SUITE_P(DTypes,
                         WeightPackerTest,
                         testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) { return std::string(DTypeName(info.param)); });

}  // namespace
}  // namespace moesaic
