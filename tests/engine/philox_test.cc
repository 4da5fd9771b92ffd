#include "engine/philox.h"

#include <array>
#include <set>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

using Words = std::array<uint32_t, 4>;

// The known answers that the authors publish with Random123.
TEST(PhiloxTest, MatchesTheKnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, DrawsAreUniformAndDistinct) {
  constexpr int kDraws = 20000;
  std::array<int, 10> buckets{};
  std::set<double> distinct;
  for (int i = 0; i < kDraws; ++i) {
    // Neighbouring seeds and positions, as the sequences of one request have.
    const double draw =
        UniformDraw(42 + static_cast<uint64_t>(i % 4), static_cast<uint64_t>(i / 4));
    ASSERT_GE(draw, 0.0);
    ASSERT_LT(draw, 1.0);
    ++buckets[static_cast<size_t>(draw * 10)];
    distinct.insert(draw);
  }
  EXPECT_EQ(distinct.size(), static_cast<size_t>(kDraws));
  double chi_squared = 0;
  for (int count : buckets) chi_squared += (count - 2000.0) * (count - 2000.0) / 2000.0;
  EXPECT_LT(chi_squared, 27.9);  // 9 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace moesaic
