#include "kernels/cpu/packing.h"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cpu/cpu_kernels.h"

namespace moesaic::kernels {
namespace {

std::vector<uint16_t> Counting(int64_t count, uint16_t first) {
  std::vector<uint16_t> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST(PackingTest, LinearOfBFloat16PairsTheDepth) {
  // 49 rows: a panel of 32 columns and one of two vectors, 17 of them real; a depth of 3 is padded.
  const LinearShape shape = {49, 3};
  const std::vector<uint16_t> weight = Counting(49 * 3, 1);
  std::vector<uint16_t> packed(cpu::PackedLinearBytes(DType::kBFloat16, shape) / 2, 0xffff);
  EXPECT_EQ(packed.size(), 2u * 2 * 32 * 2);  // panels, steps, columns, pair
  cpu::PackLinear(DType::kBFloat16, shape, weight.data(), 0, 49, packed.data());
  for (int64_t column = 0; column < 64; ++column) {
    for (int64_t k = 0; k < 4; ++k) {
      const uint16_t expected = column < 49 && k < 3 ? weight[column * 3 + k] : 0;
      EXPECT_EQ(packed[column / 32 * 128 + k / 2 * 64 + column % 32 * 2 + k % 2], expected);
    }
  }
}

TEST(PackingTest, LastPanelIsHalfWhereThatIsEnough) {
  const PackedMatrix matrix = {DType::kFloat32, 40, 5};
  EXPECT_EQ(matrix.panels(), 2);
  EXPECT_EQ(matrix.vectors(0), 2);
  EXPECT_EQ(matrix.vectors(1), 1);
  EXPECT_EQ(matrix.panel_bytes(), 5 * 32 * 4);
  EXPECT_EQ(matrix.bytes(), 5 * 48 * 4);
}

TEST(PackingTest, StripeInterleavesGateAndUp) {
  // 70 units of 128: the rest is zero.
  const StripeShape shape = {DType::kBFloat16, 2, 128, true};
  const std::vector<uint16_t> gate = Counting(70 * 2, 1);
  const std::vector<uint16_t> up = Counting(70 * 2, 1001);
  const std::vector<uint16_t> down = Counting(2 * 100, 2001);  // [hidden][units of the expert]
  std::vector<uint16_t> packed(cpu::PackedStripeBytes(shape) / 2, 0xffff);
  cpu::PackStripe({.shape = shape,
                   .valid_units = 70,
                   .gate = gate.data(),
                   .up = up.data(),
                   .down = down.data(),
                   .down_stride = 100,
                   .packed = packed.data()});
  const uint16_t* const packed_down = packed.data() + StripeLayout(shape).down_offset() / 2;
  for (int64_t unit = 0; unit < 128; ++unit) {
    for (int64_t k = 0; k < 2; ++k) {
      // One depth step: a panel of 16 units holds 16 pairs of the gate, then 16 of up.
      const int64_t pair = unit / 16 * 32 + unit % 16;
      EXPECT_EQ(packed[pair * 2 + k], unit < 70 ? gate[unit * 2 + k] : 0);
      EXPECT_EQ(packed[(pair + 16) * 2 + k], unit < 70 ? up[unit * 2 + k] : 0);
    }
    for (int64_t column = 0; column < 16; ++column) {
      const uint16_t expected = unit < 70 && column < 2 ? down[column * 100 + unit] : 0;
      EXPECT_EQ(packed_down[unit / 2 * 32 + column * 2 + unit % 2], expected);
    }
  }
}

}  // namespace
}  // namespace moesaic::kernels
