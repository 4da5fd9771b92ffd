#include "server/grpc_status.h"

#include <chrono>

#include "absl/time/time.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

// gRFC A6: a client whose service config allows retries waits this long.
constexpr char kRetryPushbackKey[] = "grpc-retry-pushback-ms";
constexpr char kRetryPushbackMs[] = "1000";

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      PrintableText({status.message().data(), status.message().size()}));
}

grpc::Status RefusalStatus(const absl::Status& status, grpc::CallbackServerContext& context) {
  if (absl::IsResourceExhausted(status)) {
    context.AddTrailingMetadata(kRetryPushbackKey, kRetryPushbackMs);
  }
  return ToGrpcStatus(status);
}

absl::Time ClientDeadline(const grpc::CallbackServerContext& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

std::string ClientMetadata(const grpc::CallbackServerContext& context, const char* name) {
  const auto found = context.client_metadata().find(name);
  if (found == context.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
}

std::string PrintableText(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
  }
  return out;
}

}  // namespace moesaic
