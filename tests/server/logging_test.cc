#include "server/logging.h"

#include <gtest/gtest.h>

#include "base/log.h"
#include "checkpoint/json.h"

namespace moesaic {
namespace {

std::string Logged(bool json, const std::string& message) {
  testing::internal::CaptureStderr();
  SetUpLogging(json);
  spdlog::info("{}", message);
  return testing::internal::GetCapturedStderr();
}

TEST(LoggingTest, WritesOneLineOfText) {
  const std::string line = Logged(false, "hello");
  EXPECT_EQ(line.substr(line.size() - 8), "I hello\n");
}

TEST(LoggingTest, WritesOneJsonObjectWhateverTheMessageHolds) {
  const std::string line = Logged(true, "a \"quoted\"\nline \xff");
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const auto object = ParseJson(line, "log");
  ASSERT_TRUE(object.ok()) << object.status();
  EXPECT_EQ((*object)["level"], "info");
  EXPECT_EQ((*object)["message"], "a \"quoted\"\nline \xEF\xBF\xBD");
  EXPECT_TRUE(object->contains("time"));
}

}  // namespace
}  // namespace moesaic
