#include "base/progress.h"

#include <cstdio>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

std::string Contents(std::FILE* file) {
  std::string text(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  EXPECT_EQ(std::fread(text.data(), 1, text.size(), file), text.size());
  return text;
}

TEST(FormatBytesTest, PicksTheUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{336} << 20), "336.0 MiB");
  EXPECT_EQ(FormatBytes(uint64_t{3} << 40), "3.0 TiB");
}

TEST(ProgressLineTest, PipedOutputIsPlainLinesAndEndsWithTheTotal) {
  std::FILE* file = std::tmpfile();
  {
    ProgressLine progress("packing", 4096, ProgressUnit::kBytes, file);
    progress.Advance(1024);
    progress.Advance(3072);
    progress.Finish();
  }
  const std::string text = Contents(file);
  EXPECT_THAT(text, testing::StartsWith("packing  4.0 KiB of 4.0 KiB  100 %"));
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  std::fclose(file);
}

TEST(ProgressLineTest, CountsItemsAndFinishesWhenDestroyed) {
  std::FILE* file = std::tmpfile();
  { ProgressLine("requests", 8, ProgressUnit::kItems, file).Advance(2); }
  EXPECT_THAT(Contents(file), testing::StartsWith("requests  2 of 8  25 %"));
  std::fclose(file);
}

}  // namespace
}  // namespace moesaic
