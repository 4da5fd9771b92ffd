#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "base/thread_pool.h"
#include "server/admission.h"
#include "server/config.h"
#include "server/grpc_server.h"
#include "server/metrics_endpoint.h"
#include "server/served_model.h"
#include "server/stream_waker.h"

namespace moesaic {

// The whole server in the order in which its parts depend on each other: doors first, so that
// probes are answered while the model loads; then the model; then SERVING.
//
// Owner: main, or a test. Thread: one, but for what members say.
class Server {
 public:
  // Listens; nothing is served yet.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config);
  // Shuts down at once if Shutdown was not called.
  ~Server();

  // Reads the model folder of the configuration and serves it.
  absl::Status LoadModel();
  // Serves a model made elsewhere.
  absl::Status Serve(ServedModel model);

  // Ends in the order that loses no request: NOT_SERVING, the lame-duck time still serving, then
  // refusing, then up to the drain timeout for what runs, then cancelling the rest so that every
  // call gets its status.
  void Shutdown();

  // Any thread.
  bool loaded() const { return admission_.loaded(); }
  int32_t grpc_port() const { return grpc_->port(); }
  int32_t metrics_port() const { return http_->port(); }
  MetricsRegistry& metrics() { return metrics_; }
  Admission& admission() { return admission_; }
  const ServedModel* model() const { return model_.get(); }

 private:
  explicit Server(const ServerConfig& config);

  absl::Status WritePortFile() const;

  const ServerConfig config_;
  MetricsRegistry metrics_;
  StreamWaker waker_;
  Admission admission_;
  std::unique_ptr<ThreadPool> pool_;    // the model's
  std::unique_ptr<ServedModel> model_;  // its engine ends before the waker
  std::unique_ptr<MetricsEndpoint> http_;
  std::unique_ptr<GrpcServer> grpc_;
  bool shut_down_ = false;
};

}  // namespace moesaic
