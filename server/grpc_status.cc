#include "server/grpc_status.h"

#include <chrono>

#include "absl/time/time.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

// gRFC A6: a client whose service config allows retries waits this long.
constexpr char kRetryPushbackKey[] = "grpc-retry-pushback-ms";
constexpr char kRetryPushbackMs[] = "1000";
constexpr size_t kMaxRequestIdBytes = 256;

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

void AddResponseMetadata(grpc::CallbackServerContext& context, bool routing_replayed) {
  if (routing_replayed) context.AddInitialMetadata(kRoutingKey, "replayed");
  const std::string id = ClientMetadata(context, kRequestIdKey);
  if (!id.empty() && id.size() <= kMaxRequestIdBytes) {
    context.AddInitialMetadata(kRequestIdKey, id);
  }
}

absl::Status CancellationStatus(absl::Time arrival, absl::Time deadline, absl::Time now) {
  // A client that gives up at its deadline is heard of before the deadline is over here: this clock
  // started when the request arrived, and gRPC rounds the time it sends up by as much as 1 %.
  constexpr absl::Duration kNetwork = absl::Milliseconds(50);
  const absl::Time earliest = deadline == absl::InfiniteFuture()
                                  ? deadline
                                  : deadline - kNetwork - 0.01 * (deadline - arrival);
  if (now >= earliest) return absl::DeadlineExceededError("the request's deadline passed");
  return absl::CancelledError("the client is gone");
}

std::string PrintableText(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
  }
  return out;
}

}  // namespace moesaic
