#include "base/isa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

TEST(IsaTest, NamesParseBackUpToTheBestOfThisMachine) {
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    const absl::StatusOr<Isa> parsed = ParseIsa(IsaName(isa));
    if (isa <= DetectIsa()) {
      ASSERT_TRUE(parsed.ok());
      EXPECT_EQ(*parsed, isa);
    } else {
      EXPECT_EQ(parsed.status().code(), absl::StatusCode::kFailedPrecondition);
    }
  }
  EXPECT_EQ(*ParseIsa("auto"), DetectIsa());
}

TEST(IsaTest, UnknownNameIsRefusedWithTheChoices) {
  const absl::Status status = ParseIsa("sse9").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr("sse9"), testing::HasSubstr("avx2")));
}

}  // namespace
}  // namespace moesaic
