#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <grpcpp/support/server_callback.h>

#include "absl/base/thread_annotations.h"
#include "proto/inference/grpc_service.pb.h"
#include "server/admission.h"
#include "server/kserve_codec.h"

namespace moesaic {

// One ModelStreamInfer call: any number of requests, running side by side, whose answers share the
// stream and carry the request's id. An error answers its request and the stream goes on, unless
// the client asked for a real status (metadata "triton_grpc_error: true").
//
// Requests are read only while few answers wait, so that a client that sends and never reads cannot
// fill memory.
//
// Owner: itself; gRPC calls OnDone last. Threads: gRPC's and the waker's.
class KserveStreamReactor final
    : public grpc::ServerBidiReactor<inference::ModelInferRequest,
                                     inference::ModelStreamInferResponse>,
      public StreamListener {
 public:
  KserveStreamReactor(Admission& admission, grpc::CallbackServerContext& context);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void OnOutputReady(ResponseStream& stream) override;
  void OnStalled(ResponseStream& stream) override;

 private:
  struct Running {
    AdmittedRequest active;
    InferCall call;
    std::string model_name;
    std::vector<bool> answered;  // [n]: the sequence had its first answer
    int32_t finished = 0;        // sequences
  };
  struct Answer {
    inference::ModelStreamInferResponse message;
    // Of the last answer made from one Take: whose output it was.
    std::shared_ptr<ResponseStream> stream;
  };

  absl::Status Start() ABSL_LOCKS_EXCLUDED(mutex_);  // the request just read
  void AddError(const std::string& id, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Moves what a ready stream holds to the outbox.
  void TakeOutput(RequestId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddAnswer(Running& running, const SequenceDelta& delta)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Writes the next answer, reads on, or finishes the call, as far as it can.
  void Advance() ABSL_LOCKS_EXCLUDED(mutex_);
  void End() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The engine is done with these streams; it may still be about to say so once more.
  void DetachRetired() ABSL_LOCKS_EXCLUDED(mutex_);

  Admission& admission_;
  grpc::CallbackServerContext& context_;
  const absl::Time arrival_;
  const bool errors_end_stream_;

  inference::ModelInferRequest request_;  // gRPC's while a read is in flight

  std::mutex mutex_;
  std::map<RequestId, Running> running_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<ResponseStream>> retired_ ABSL_GUARDED_BY(mutex_);
  std::deque<RequestId> ready_ ABSL_GUARDED_BY(mutex_);  // streams to take from, in order
  std::deque<Answer> outbox_ ABSL_GUARDED_BY(mutex_);
  Answer in_flight_ ABSL_GUARDED_BY(mutex_);  // gRPC's while writing
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool reads_done_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_status_ ABSL_GUARDED_BY(mutex_);  // not OK: ends the call
};

}  // namespace moesaic
