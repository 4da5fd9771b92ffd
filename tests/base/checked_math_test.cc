#include "base/checked_math.h"

#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

TEST(CheckedMathTest, OverflowGivesNothing) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(CheckedAdd<int64_t>(kMax - 1, 1), kMax);
  EXPECT_EQ(CheckedAdd<int64_t>(kMax, 1), std::nullopt);
  EXPECT_EQ(CheckedMul<uint64_t>(uint64_t{1} << 32, uint64_t{1} << 32), std::nullopt);
  EXPECT_EQ(CheckedMul<int64_t>(-3, 7), -21);
  EXPECT_EQ(RoundUp(65, 64), 128);
  EXPECT_EQ(RoundUp(64, 64), 64);
  EXPECT_EQ(CeilDiv(65, 64), 2);
}

absl::StatusOr<int> Half(int value) {
  if (value % 2 != 0)
    return absl::InvalidArgumentError(StrCat("odd: ", value, std::string_view("!")));
  return value / 2;
}

absl::Status CheckQuarter(int value, int& quarter) {
  MOESAIC_ASSIGN_OR_RETURN(const int half, Half(value));
  MOESAIC_ASSIGN_OR_RETURN(quarter, Half(half));
  MOESAIC_RETURN_IF_ERROR(Half(quarter).status());
  return absl::OkStatus();
}

TEST(StatusMacrosTest, ReturnTheFirstError) {
  int quarter = 0;
  EXPECT_TRUE(CheckQuarter(8, quarter).ok());
  EXPECT_EQ(quarter, 2);
  EXPECT_EQ(CheckQuarter(6, quarter).message(), "odd: 3!");
  EXPECT_EQ(CheckQuarter(4, quarter).message(), "odd: 1!");
}

}  // namespace
}  // namespace moesaic
