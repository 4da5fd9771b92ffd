#include "base/crc32.h"

#include <string_view>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

uint32_t Of(std::string_view text) { return Crc32(std::as_bytes(std::span(text))); }

TEST(Crc32Test, HasTheStandardsCheckValues) {
  EXPECT_EQ(Of(""), 0u);
  EXPECT_EQ(Of("123456789"), 0xcbf43926u);
  EXPECT_EQ(Of("a"), 0xe8b7be43u);
}

}  // namespace
}  // namespace moesaic
