#include "server/health_check.h"

#include <chrono>

#include <grpcpp/create_channel.h>

#include "base/str_cat.h"
#include "proto/grpc/health/v1/health.grpc.pb.h"

namespace moesaic {
namespace {

constexpr auto kTimeout = std::chrono::seconds(3);

std::string LocalAddress(const std::string& bind) {
  if (bind.empty() || bind == "0.0.0.0") return "127.0.0.1";
  if (bind == "::" || bind == "[::]") return "[::1]";
  return bind.find(':') != std::string::npos && bind[0] != '[' ? StrCat("[", bind, "]") : bind;
}

}  // namespace

absl::Status AskHealth(const std::string& bind, int32_t port) {
  const std::string address = StrCat(LocalAddress(bind), ":", port);
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  const auto stub = grpc::health::v1::Health::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kTimeout);
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status = stub->Check(&context, {}, &response);
  if (!status.ok()) return absl::UnavailableError(StrCat(address, ": ", status.error_message()));
  if (response.status() != grpc::health::v1::HealthCheckResponse::SERVING) {
    return absl::UnavailableError(
        StrCat(address, ": ",
               grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status())));
  }
  return absl::OkStatus();
}

}  // namespace moesaic
