// The parts that need a call are covered by inference_service_test and kserve_service_test.
#include "server/grpc_status.h"

#include <gtest/gtest.h>

namespace moesaic {
namespace {

TEST(GrpcStatusTest, CodesAndPrintableMessages) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  const grpc::Status status = ToGrpcStatus(absl::NotFoundError("a\xff\n"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "a??");
}

TEST(GrpcStatusTest, ACancellationAtTheDeadlineIsTheDeadlines) {
  const absl::Time arrival = absl::FromUnixSeconds(1000);
  const absl::Time deadline = arrival + absl::Seconds(100);
  const auto code = [&](absl::Time when) {
    return CancellationStatus(arrival, deadline, when).code();
  };
  EXPECT_EQ(code(arrival), absl::StatusCode::kCancelled);
  EXPECT_EQ(code(deadline - absl::Seconds(2)), absl::StatusCode::kCancelled);
  EXPECT_EQ(code(deadline - absl::Seconds(1)), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(code(deadline + absl::Seconds(1)), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CancellationStatus(arrival, absl::InfiniteFuture(), deadline).code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace moesaic
