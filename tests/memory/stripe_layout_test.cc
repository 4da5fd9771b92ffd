#include "memory/stripe_layout.h"

#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "base/checked_math.h"

namespace moesaic {
namespace {

constexpr int64_t kMiB = 1 << 20;

int64_t StripeBytes(const ExpertShape& shape, const StripeLayout& layout) {
  return (shape.gated ? 3 : 2) * layout.units_per_stripe * shape.hidden *
         static_cast<int64_t>(DTypeBytes(shape.dtype));
}

struct KnownModel {
  const char* name;
  ExpertShape shape;
  int64_t units_per_stripe;
  int64_t num_stripes;
  int64_t stripe_bytes;
};

class KnownModelTest : public testing::TestWithParam<KnownModel> {};

TEST_P(KnownModelTest, HasTheDocumentedStripes) {
  const KnownModel& model = GetParam();
  const StripeLayout layout = ChooseStripeLayout(model.shape);
  EXPECT_EQ(layout.units_per_stripe, model.units_per_stripe);
  EXPECT_EQ(layout.num_stripes, model.num_stripes);
  EXPECT_EQ(StripeBytes(model.shape, layout), model.stripe_bytes);
}

INSTANTIATE_TEST_SUITE_P(
    Models,
    KnownModelTest,
    testing::Values(
        KnownModel{"Qwen3_30B_A3B", {DType::kBFloat16, 2048, 768}, 128, 6, kMiB * 3 / 2},
        KnownModel{"OLMoE_1B_7B", {DType::kBFloat16, 2048, 1024}, 128, 8, kMiB * 3 / 2},
        KnownModel{"Switch_base", {DType::kBFloat16, 768, 3072, false}, 512, 6, kMiB * 3 / 2},
        KnownModel{"Mixtral_8x7B", {DType::kBFloat16, 4096, 14336}, 128, 112, kMiB * 3}),
    [](const auto& info) { return std::string(info.param.name); });

struct Shape {
  int64_t hidden;
  int64_t units;
};

class AnyShapeTest : public testing::TestWithParam<std::tuple<Shape, DType, bool>> {};

TEST_P(AnyShapeTest, StripesCoverEveryUnitOnce) {
  const auto& [size, dtype, gated] = GetParam();
  const ExpertShape shape = {dtype, size.hidden, size.units, gated};
  const StripeLayout layout = ChooseStripeLayout(shape);
  ASSERT_GT(layout.units_per_stripe, 0);
  EXPECT_EQ(layout.units_per_stripe % 64, 0);
  int64_t covered = 0;
  for (int64_t stripe = 0; stripe < layout.num_stripes; ++stripe) {
    EXPECT_EQ(layout.FirstUnit(stripe), covered);
    EXPECT_GT(layout.ValidUnits(stripe), 0);
    covered += layout.ValidUnits(stripe);
  }
  EXPECT_EQ(covered, size.units);
  const int64_t padding = layout.num_stripes * layout.units_per_stripe - size.units;
  if (layout.num_stripes == 1) {
    EXPECT_EQ(layout.units_per_stripe, RoundUp<int64_t>(size.units, 64));
  }
  EXPECT_LT(padding, layout.units_per_stripe);
  const int64_t smallest = (gated ? 3 : 2) * 64 * size.hidden * DTypeBytes(dtype);
  EXPECT_LE(StripeBytes(shape, layout), std::max(smallest, kMiB * 9 / 2));
}

INSTANTIATE_TEST_SUITE_P(Grid,
                         AnyShapeTest,
                         testing::Combine(testing::Values(Shape{32, 1},
                                                          Shape{64, 63},
                                                          Shape{64, 64},
                                                          Shape{96, 65},
                                                          Shape{1024, 384},
                                                          Shape{2048, 1408},
                                                          Shape{2048, 5632},
                                                          Shape{3584, 2560},
                                                          Shape{4096, 14336},
                                                          Shape{6144, 10752},
                                                          Shape{65536, 1 << 20}),
                                          testing::Values(DType::kFloat32, DType::kBFloat16),
                                          testing::Bool()));

TEST(StripeLayoutTest, PrefersASizeWithoutPadding) {
  // 1.5 MiB would be 256 units and two stripes, the second half empty.
  const StripeLayout layout = ChooseStripeLayout({DType::kBFloat16, 1024, 384});
  EXPECT_EQ(layout.units_per_stripe * layout.num_stripes, 384);
}

TEST(StripeLayoutTest, UnitsBeyondTheExpertAreNotValid) {
  const StripeLayout layout = {.units = 100, .units_per_stripe = 64, .num_stripes = 2};
  EXPECT_EQ(layout.ValidUnits(0), 64);
  EXPECT_EQ(layout.ValidUnits(1), 36);
}

}  // namespace
}  // namespace moesaic
