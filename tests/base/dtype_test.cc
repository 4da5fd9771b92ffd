#include "base/dtype.h"

#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

TEST(BFloat16Test, EveryValueSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const BFloat16 value{static_cast<uint16_t>(bits)};
    const float wide = ToFloat(value);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(wide))));
    } else {
      EXPECT_EQ(ToBFloat16(wide).bits, bits);
    }
  }
}

TEST(BFloat16Test, RoundsToNearestTiesToEven) {
  EXPECT_EQ(ToFloat(ToBFloat16(1.0f + 1.0f / 256)), 1.0f);               // a tie, down to even
  EXPECT_EQ(ToFloat(ToBFloat16(1.0f + 3.0f / 256)), 1.0f + 4.0f / 256);  // a tie, up to even
  EXPECT_EQ(ToFloat(ToBFloat16(1.0f + 1.01f / 256)), 1.0f + 2.0f / 256);
  EXPECT_TRUE(std::isinf(ToFloat(ToBFloat16(std::numeric_limits<float>::max()))));
}

TEST(Float16Test, EveryValueIsExact) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const int exponent = static_cast<int>((bits >> 10) & 0x1f);
    const int mantissa = static_cast<int>(bits & 0x3ff);
    const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
    const float value = ToFloat(Float16{static_cast<uint16_t>(bits)});
    if (exponent == 0x1f) {
      EXPECT_TRUE(mantissa == 0 ? std::isinf(value) && std::signbit(value) == (sign < 0)
                                : std::isnan(value));
      continue;
    }
    const float expected = exponent == 0
                               ? std::ldexp(static_cast<float>(mantissa), -24)
                               : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    EXPECT_EQ(value, sign * expected) << bits;
  }
}

TEST(Float16Test, EveryValueSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const float wide = ToFloat(Float16{static_cast<uint16_t>(bits)});
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(ToFloat(ToFloat16(wide))));
    } else {
      EXPECT_EQ(ToFloat16(wide).bits, bits);
    }
  }
}

TEST(Float16Test, RoundsToNearestTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = ToFloat(Float16{static_cast<uint16_t>(bits)});
    const float high = ToFloat(Float16{static_cast<uint16_t>(bits + 1)});
    const float middle = (low + high) / 2;  // exact
    EXPECT_EQ(ToFloat16(middle).bits, bits + (bits & 1)) << bits;
    EXPECT_EQ(ToFloat16(std::nextafter(middle, low)).bits, bits) << bits;
    EXPECT_EQ(ToFloat16(std::nextafter(middle, high)).bits, bits + 1) << bits;
  }
  EXPECT_EQ(ToFloat16(65519.996f).bits, 0x7bff);
  EXPECT_TRUE(std::isinf(ToFloat(ToFloat16(65520.0f))));
  EXPECT_TRUE(std::isinf(ToFloat(ToFloat16(-std::numeric_limits<float>::max()))));
}

}  // namespace
}  // namespace moesaic
