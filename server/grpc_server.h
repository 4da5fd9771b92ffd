#pragma once

#include <cstdint>
#include <memory>

#include <grpcpp/server.h>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/admission.h"
#include "server/config.h"

namespace moesaic {

class InferenceService;
class KserveService;

// The gRPC door: both services, health and reflection on one port. It listens from Start on, so
// that probes see a loading server as alive and not ready.
//
// Owner: main. Thread: main's; RPCs run on gRPC's. `admission` must outlive it.
class GrpcServer {
 public:
  // Unavailable when the port cannot be had.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerConfig& config,
                                                           Admission& admission);
  ~GrpcServer();

  int32_t port() const { return port_; }
  // What grpc.health.v1 says of "" and of each service.
  void SetServing(bool serving);
  // Cancels what is still running at `deadline` and returns when every call has ended. Call it
  // once.
  void Shutdown(absl::Time deadline);

 private:
  GrpcServer();

  std::unique_ptr<InferenceService> inference_service_;
  std::unique_ptr<KserveService> kserve_service_;
  std::unique_ptr<grpc::Server> server_;
  int32_t port_ = 0;
};

}  // namespace moesaic
