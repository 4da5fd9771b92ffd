#include "server/kserve_stream_reactor.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/grpc_status.h"

namespace moesaic {
namespace {

constexpr char kGrpcErrorKey[] = "triton_grpc_error";
// Answers that may wait to be written before the next request is read.
constexpr size_t kMaxWaitingAnswers = 32;

}  // namespace

KserveStreamReactor::KserveStreamReactor(Admission& admission, grpc::CallbackServerContext& context)
    : admission_(admission),
      context_(context),
      arrival_(absl::Now()),
      errors_end_stream_(ClientMetadata(context, kGrpcErrorKey) == "true") {
  AddResponseMetadata(context_, admission_.routing_replayed());
  Advance();
}

absl::Status KserveStreamReactor::Start() {
  MOESAIC_ASSIGN_OR_RETURN(const ServedModel* model, admission_.FindModel(request_.model_name()));
  MOESAIC_ASSIGN_OR_RETURN(InferCall call, DecodeInferRequest(request_, *model));
  GenerationRequest generation = std::move(call.request);
  generation.deadline = std::min(generation.deadline, ClientDeadline(context_));
  if (generation.client_id.empty()) generation.client_id = ClientMetadata(context_, kRequestIdKey);
  MOESAIC_ASSIGN_OR_RETURN(AdmittedRequest active,
                           admission_.Submit(std::move(generation), !call.stream, this));
  const RequestId id = active.stream->id();
  bool too_late = false;
  {
    const std::lock_guard lock(mutex_);
    too_late = finished_;
    if (too_late) {
      retired_.push_back(std::move(active.stream));
    } else {
      Running& running = running_[id];
      running.active = std::move(active);
      running.call = std::move(call);
      running.model_name = model->name;
      running.answered.resize(running.call.num_sequences);
      // Output that came before this moment was announced to nobody.
      ready_.push_back(id);
    }
  }
  if (too_late) admission_.Cancel(id);
  return absl::OkStatus();
}

void KserveStreamReactor::OnReadDone(bool ok) {
  absl::Status status;
  if (ok) status = Start();
  if (!status.ok()) RecordRefusal(status, admission_.statistics());
  {
    const std::lock_guard lock(mutex_);
    reading_ = false;
    reads_done_ = !ok;
    if (!status.ok()) AddError(request_.id(), status);
  }
  Advance();
}

void KserveStreamReactor::OnWriteDone(bool ok) {
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (in_flight_.stream != nullptr) in_flight_.stream->WriteDone();
    in_flight_ = Answer();
    if (!ok) cancelled_ = true;
  }
  DetachRetired();
  Advance();
}

void KserveStreamReactor::OnCancel() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  Advance();
}

void KserveStreamReactor::OnOutputReady(ResponseStream& stream) {
  {
    const std::lock_guard lock(mutex_);
    if (finished_ || running_.count(stream.id()) == 0) return;
    ready_.push_back(stream.id());
  }
  Advance();
}

void KserveStreamReactor::OnStalled(ResponseStream&) { context_.TryCancel(); }

void KserveStreamReactor::AddError(const std::string& id, const absl::Status& status) {
  if (errors_end_stream_) {
    end_status_ = status;
    return;
  }
  Answer answer;
  answer.message.set_error_message(
      PrintableText({status.message().data(), status.message().size()}));
  answer.message.mutable_infer_response()->set_id(id);
  SetFinalResponse(*answer.message.mutable_infer_response(), true);
  outbox_.push_back(std::move(answer));
}

void KserveStreamReactor::AddAnswer(Running& running, const SequenceDelta& delta) {
  const InferCall& call = running.call;
  const bool first = !running.answered[delta.index];
  running.answered[delta.index] = true;
  running.finished += delta.finish_reason != FinishReason::kNone;
  Answer answer;
  *answer.message.mutable_infer_response() =
      EncodeInferResponse(call, running.model_name, delta, first ? call.input_text : "");
  SetFinalResponse(*answer.message.mutable_infer_response(),
                   running.finished == call.num_sequences && !call.empty_final_response);
  outbox_.push_back(std::move(answer));
}

void KserveStreamReactor::TakeOutput(RequestId id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  Running& running = found->second;
  const std::shared_ptr<ResponseStream> stream = running.active.stream;
  const StreamOutput output = stream->Take();
  const size_t waiting = outbox_.size();
  for (const SequenceDelta& delta : output.deltas) {
    const bool failed = delta.finish_reason == FinishReason::kCancelled ||
                        delta.finish_reason == FinishReason::kError;
    if (!failed || !delta.tokens.empty()) AddAnswer(running, delta);
  }
  if (output.ended) {
    if (!output.status.ok()) {
      AddError(running.call.id, output.status);
    } else if (running.call.empty_final_response) {
      Answer answer;
      inference::ModelInferResponse& message = *answer.message.mutable_infer_response();
      message.set_model_name(running.model_name);
      message.set_model_version(kModelVersion);
      message.set_id(running.call.id);
      SetFinalResponse(message, true);
      outbox_.push_back(std::move(answer));
    }
    RecordRequestEnd(running.active, output.status, admission_.statistics());
    retired_.push_back(stream);
    running_.erase(found);
  }
  if (outbox_.size() > waiting) {
    outbox_.back().stream = stream;
  } else {
    stream->WriteDone();
  }
}

void KserveStreamReactor::Advance() {
  // gRPC is called under the lock: no reaction runs within these calls, and OnDone waits for it.
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  if (!writing_) {
    while (outbox_.empty() && !ready_.empty()) {
      const RequestId id = ready_.front();
      ready_.pop_front();
      TakeOutput(id);
    }
    if (cancelled_) {
      end_status_ = CancellationStatus(arrival_, ClientDeadline(context_), absl::Now());
    }
    if (!end_status_.ok() || (reads_done_ && running_.empty() && outbox_.empty())) return End();
    if (!outbox_.empty()) {
      in_flight_ = std::move(outbox_.front());
      outbox_.pop_front();
      writing_ = true;
      StartWrite(&in_flight_.message);
    }
  }
  if (!reading_ && !reads_done_ && outbox_.size() < kMaxWaitingAnswers) {
    reading_ = true;
    StartRead(&request_);
  }
}

void KserveStreamReactor::End() {
  finished_ = true;
  for (auto& [id, running] : running_) {
    admission_.Cancel(id);
    RecordRequestEnd(running.active, end_status_, admission_.statistics());
    retired_.push_back(running.active.stream);
  }
  running_.clear();
  Finish(ToGrpcStatus(end_status_));
}

void KserveStreamReactor::DetachRetired() {
  std::vector<std::shared_ptr<ResponseStream>> retired;
  {
    const std::lock_guard lock(mutex_);
    std::swap(retired, retired_);
  }
  for (const auto& stream : retired) stream->Detach();
}

void KserveStreamReactor::OnDone() {
  DetachRetired();
  delete this;
}

}  // namespace moesaic
