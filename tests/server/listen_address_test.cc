#include "server/listen_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/metrics_endpoint.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

TEST(ListenAddressTest, AFreePortIsFine) {
  EXPECT_TRUE(CheckListenAddress("127.0.0.1", 0).ok());
  EXPECT_TRUE(CheckListenAddress("0.0.0.0", 0).ok());
}

TEST(ListenAddressTest, SaysWhyNot) {
  for (const char* name : {"nowhere.invalid", "", "1.2.3.4.5"}) {
    const absl::Status status = CheckListenAddress(name, 0);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--bind"));
  }
  // Reserved for documentation: no machine has it.
  const absl::Status foreign = CheckListenAddress("192.0.2.1", 0);
  EXPECT_EQ(foreign.code(), absl::StatusCode::kUnavailable) << foreign;
  EXPECT_THAT(std::string(foreign.message()), HasSubstr("assign"));

  const auto other = MetricsEndpoint::Start("127.0.0.1", 0, {});
  ASSERT_TRUE(other.ok()) << other.status();
  const absl::Status taken = CheckListenAddress("127.0.0.1", (*other)->port());
  EXPECT_EQ(taken.code(), absl::StatusCode::kUnavailable) << taken;
  EXPECT_THAT(std::string(taken.message()), HasSubstr("in use"));
}

}  // namespace
}  // namespace moesaic
