#pragma once

#include <mutex>

#include <grpcpp/support/server_callback.h>

#include "absl/base/thread_annotations.h"
#include "proto/inference/grpc_service.pb.h"
#include "server/admission.h"
#include "server/kserve_codec.h"

namespace moesaic {

// One ModelInfer call: the whole answer in one message.
//
// Owner: itself; gRPC calls OnDone last. Threads: gRPC's and the waker's.
class KserveInferReactor final : public grpc::ServerUnaryReactor, public StreamListener {
 public:
  KserveInferReactor(const inference::ModelInferRequest& request,
                     inference::ModelInferResponse& response,
                     Admission& admission,
                     grpc::CallbackServerContext& context);

  void OnCancel() override;
  void OnDone() override;

  void OnOutputReady(ResponseStream& stream) override;
  void OnStalled(ResponseStream& stream) override;

 private:
  absl::Status Start(const inference::ModelInferRequest& request);
  // Ends the call once; `abandon`: the engine is still at work.
  void End(const absl::Status& status, bool abandon) ABSL_LOCKS_EXCLUDED(mutex_);

  Admission& admission_;
  grpc::CallbackServerContext& context_;
  inference::ModelInferResponse& response_;

  std::mutex mutex_;
  InferCall call_ ABSL_GUARDED_BY(mutex_);
  std::string model_name_ ABSL_GUARDED_BY(mutex_);
  AdmittedRequest active_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace moesaic
