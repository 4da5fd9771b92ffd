#include "server/grpc_server.h"

#include <string>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "server/inference_service.h"
#include "server/kserve_service.h"
#include "server/listen_address.h"

namespace moesaic {
namespace {

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

void SetLimits(const ServerConfig& config, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_receive_message_bytes));
  builder.SetMaxSendMessageSize(static_cast<int>(config.max_send_message_bytes));
  if (config.keepalive_time > absl::ZeroDuration()) {
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(config.keepalive_time));
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                               Milliseconds(config.keepalive_timeout));
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  }
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             Milliseconds(config.keepalive_min_client_interval));
  if (config.max_connection_age > absl::ZeroDuration()) {
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                               Milliseconds(config.max_connection_age));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                               Milliseconds(config.max_connection_age_grace));
  }
  // Two servers on one port would share its requests without a word.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace

GrpcServer::GrpcServer() = default;
GrpcServer::~GrpcServer() = default;

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ServerConfig& config,
                                                              Admission& admission) {
  MOESAIC_RETURN_IF_ERROR(CheckListenAddress(config.bind, config.grpc_port));
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  std::unique_ptr<GrpcServer> result(new GrpcServer);
  result->inference_service_ =
      std::make_unique<InferenceService>(admission, config.max_receive_message_bytes);
  result->kserve_service_ = std::make_unique<KserveService>(admission);

  grpc::ServerBuilder builder;
  SetLimits(config, builder);
  const bool ipv6 = config.bind.find(':') != std::string::npos && config.bind[0] != '[';
  const std::string address =
      StrCat(ipv6 ? StrCat("[", config.bind, "]") : config.bind, ":", config.grpc_port);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &result->port_);
  builder.RegisterService(result->inference_service_.get());
  builder.RegisterService(result->kserve_service_.get());
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr || result->port_ == 0) {
    return absl::UnavailableError(StrCat("cannot listen on ", address, " (--bind, --grpc-port)"));
  }
  result->SetServing(false);
  return result;
}

void GrpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus(serving);
  for (const char* service : {"", v1::Inference::service_full_name(),
                              inference::GRPCInferenceService::service_full_name()}) {
    health->SetServingStatus(service, serving);
  }
}

void GrpcServer::Shutdown(absl::Time deadline) {
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_->Wait();
}

}  // namespace moesaic
