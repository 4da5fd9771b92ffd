#include "model/weight_matrix.h"

#include <array>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

std::vector<std::byte> Bytes(const std::vector<uint16_t>& values, size_t shift) {
  std::vector<std::byte> bytes(shift + values.size() * 2);
  std::memcpy(bytes.data() + shift, values.data(), values.size() * 2);
  return bytes;
}

WeightMatrix Stored(DType dtype, int64_t rows, int64_t cols, std::span<const std::byte> data) {
  WeightMatrix matrix;
  matrix.dtype = dtype;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.data = data;
  return matrix;
}

TEST(WeightMatrixTest, ConvertsFloat16Exactly) {
  // 1, -2, the largest, the smallest normal, the smallest subnormal, 0.
  const std::vector<std::byte> bytes =
      Bytes({0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x0000}, /*shift=*/1);
  const WeightMatrix matrix = Stored(DType::kFloat16, 2, 3, std::span(bytes).subspan(1));
  std::vector<float> out(6);
  CopyWeights(matrix, 0, 2, 0, 3, DType::kFloat32, out.data(), 3);
  EXPECT_EQ(out, (std::vector<float>{1.0f, -2.0f, 65504.0f, std::ldexp(1.0f, -14),
                                     std::ldexp(1.0f, -24), 0.0f}));
}

TEST(WeightMatrixTest, RoundsFloat32ToNearestEven) {
  const std::vector<float> values = {1.0f, 1.0f + 1.0f / 256, 1.0f + 3.0f / 256, -0.1f};
  const WeightMatrix matrix =
      Stored(DType::kFloat32, 1, 4, std::as_bytes(std::span<const float>(values)));
  std::vector<BFloat16> out(4);
  CopyWeights(matrix, 0, 1, 0, 4, DType::kBFloat16, out.data(), 4);
  EXPECT_EQ(ToFloat(out[0]), 1.0f);
  EXPECT_EQ(ToFloat(out[1]), 1.0f);              // a tie, to even
  EXPECT_EQ(ToFloat(out[2]), 1.0f + 1.0f / 64);  // a tie, to even
  EXPECT_NEAR(ToFloat(out[3]), -0.1f, 0.1f / 256);
}

TEST(WeightMatrixTest, CopiesARectangleWithItsStride) {
  std::vector<float> values(5 * 7);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const WeightMatrix matrix =
      Stored(DType::kFloat32, 5, 7, std::as_bytes(std::span<const float>(values)));
  std::vector<float> out(2 * 4, -1.0f);
  CopyWeights(matrix, 3, 2, 2, 3, DType::kFloat32, out.data(), 4);
  EXPECT_EQ(out, (std::vector<float>{23, 24, 25, -1, 30, 31, 32, -1}));
}

TEST(WeightMatrixTest, InPlaceOnlyWhenTypeAndAlignmentAllow) {
  alignas(4) std::array<std::byte, 68> storage = {};
  const auto matrix = [&](size_t shift) {
    return Stored(DType::kFloat32, 4, 4, std::span(storage).subspan(shift, 64));
  };
  EXPECT_EQ(matrix(0).InPlace(2, 1, DType::kFloat32), storage.data() + 36);
  EXPECT_EQ(matrix(2).InPlace(2, 1, DType::kFloat32), nullptr);
  EXPECT_EQ(matrix(0).InPlace(2, 1, DType::kBFloat16), nullptr);
  EXPECT_EQ(WeightMatrix{}.InPlace(0, 0, DType::kFloat32), nullptr);
}

TEST(WeightMatrixTest, GeneratedValuesDependOnSeedAndElementAlone) {
  WeightMatrix matrix;
  matrix.rows = 37;
  matrix.cols = 53;
  matrix.seed = 9;
  matrix.deviation = 0.5f;
  std::vector<float> whole(37 * 53);
  CopyWeights(matrix, 0, 37, 0, 53, DType::kFloat32, whole.data(), 53);
  for (int64_t first_col = 0; first_col < 6; ++first_col) {
    std::vector<float> part(5 * 11);
    CopyWeights(matrix, 20, 5, first_col, 11, DType::kFloat32, part.data(), 11);
    for (int64_t row = 0; row < 5; ++row) {
      for (int64_t col = 0; col < 11; ++col) {
        EXPECT_EQ(part[row * 11 + col], whole[(20 + row) * 53 + first_col + col]);
      }
    }
  }
  double sum = 0.0;
  double squares = 0.0;
  for (const float value : whole) {
    sum += value;
    squares += value * value;
  }
  // Standard errors of 1961 samples: 0.011 of the mean, 0.005 of the deviation.
  EXPECT_NEAR(sum / whole.size(), 0.0, 0.05);
  EXPECT_NEAR(std::sqrt(squares / whole.size()), 0.5, 0.025);
  matrix.seed = 10;
  std::vector<float> other(whole.size());
  CopyWeights(matrix, 0, 37, 0, 53, DType::kFloat32, other.data(), 53);
  EXPECT_NE(whole, other);
}

}  // namespace
}  // namespace moesaic
