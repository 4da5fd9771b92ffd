#pragma once

#include <deque>
#include <mutex>
#include <string>

#include <grpcpp/support/server_callback.h>

#include "absl/base/thread_annotations.h"
#include "proto/moesaic/v1/inference.pb.h"
#include "server/admission.h"

namespace moesaic {

// One Generate call: admits the request, then writes what its stream holds, one message in flight.
// While a message is in flight the stream merges, so memory per call is bounded by the stream.
//
// Owner: itself; gRPC calls OnDone last. Threads: gRPC's and the waker's.
class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                              public StreamListener {
 public:
  GenerateReactor(const v1::GenerateRequest& request,
                  Admission& admission,
                  grpc::CallbackServerContext& context);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void OnOutputReady(ResponseStream& stream) override;
  void OnStalled(ResponseStream& stream) override;

 private:
  absl::Status Start(const v1::GenerateRequest& request);
  // Writes the next message, or finishes the call, unless a write is in flight.
  void Advance() ABSL_LOCKS_EXCLUDED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeOutput() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Admission& admission_;
  grpc::CallbackServerContext& context_;

  std::mutex mutex_;
  AdmittedRequest active_ ABSL_GUARDED_BY(mutex_);  // set before the first callback
  std::deque<v1::GenerateResponse> outbox_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse in_flight_ ABSL_GUARDED_BY(mutex_);  // borrowed by gRPC while writing
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;  // the stream holds nothing more
  absl::Status end_status_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

// The wire form of one delta.
v1::GenerateResponse EncodeDelta(const std::string& request_id,
                                 const SequenceDelta& delta,
                                 bool with_logprobs);
v1::TokenLogprobs EncodeLogprobs(const TokenOutput& token);

}  // namespace moesaic
