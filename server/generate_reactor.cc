#include "server/generate_reactor.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/grpc_status.h"
#include "server/sampling_proto.h"

namespace moesaic {
namespace {

void Encode(const TokenLogprob& logprob, v1::Logprob* message) {
  message->set_token_id(logprob.token);
  message->set_logprob(logprob.logprob);
  message->set_rank(logprob.rank);
}

v1::FinishReason Encode(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    default:  // failures are the call's status
      return v1::FINISH_REASON_UNSPECIFIED;
  }
}

}  // namespace

v1::TokenLogprobs EncodeLogprobs(const TokenOutput& token) {
  v1::TokenLogprobs message;
  Encode(token.chosen, message.mutable_chosen());
  for (const TokenLogprob& top : token.top) Encode(top, message.add_top());
  return message;
}

v1::GenerateResponse EncodeDelta(const std::string& request_id,
                                 const SequenceDelta& delta,
                                 bool with_logprobs) {
  v1::GenerateResponse message;
  message.set_request_id(request_id);
  message.set_index(delta.index);
  message.set_text(delta.text);
  message.mutable_token_ids()->Reserve(static_cast<int>(delta.tokens.size()));
  for (const TokenOutput& token : delta.tokens) {
    message.add_token_ids(token.token);
    if (with_logprobs) *message.add_logprobs() = EncodeLogprobs(token);
  }
  if (delta.finish_reason == FinishReason::kNone) return message;
  message.set_finish_reason(Encode(delta.finish_reason));
  if (const auto* text = std::get_if<std::string>(&delta.stop_reason)) {
    message.set_stop_string(*text);
  } else if (const auto* id = std::get_if<int32_t>(&delta.stop_reason)) {
    message.set_stop_token_id(*id);
  }
  message.mutable_usage()->set_prompt_tokens(delta.usage.prompt_tokens);
  message.mutable_usage()->set_cached_prompt_tokens(delta.usage.cached_prompt_tokens);
  message.mutable_usage()->set_completion_tokens(delta.usage.completion_tokens);
  return message;
}

GenerateReactor::GenerateReactor(const v1::GenerateRequest& request,
                                 Admission& admission,
                                 grpc::CallbackServerContext& context)
    : admission_(admission), context_(context) {
  AddResponseMetadata(context_, admission_.routing_replayed());
  if (const absl::Status status = Start(request); !status.ok()) {
    RecordRefusal(status, admission_.statistics());
    {
      const std::lock_guard lock(mutex_);
      finished_ = true;
    }
    Finish(RefusalStatus(status, context_));
  }
}

absl::Status GenerateReactor::Start(const v1::GenerateRequest& request) {
  const absl::StatusOr<const ServedModel*> model = admission_.FindModel(request.model());
  if (!model.ok()) return model.status();
  absl::StatusOr<GenerationRequest> decoded = DecodeGenerateRequest(request, (*model)->defaults);
  if (!decoded.ok()) return decoded.status();
  decoded->deadline = ClientDeadline(context_);
  if (decoded->client_id.empty()) decoded->client_id = ClientMetadata(context_, kRequestIdKey);
  // Held so that the first output, which may come at once, waits until `active_` is set.
  const std::lock_guard lock(mutex_);
  absl::StatusOr<AdmittedRequest> active = admission_.Submit(*std::move(decoded), false, this);
  if (!active.ok()) return active.status();
  active_ = *std::move(active);
  return absl::OkStatus();
}

void GenerateReactor::OnOutputReady(ResponseStream&) { Advance(); }

void GenerateReactor::OnStalled(ResponseStream&) { context_.TryCancel(); }

void GenerateReactor::OnWriteDone(bool ok) {
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    active_.stream->WriteDone();
    if (!ok) cancelled_ = true;
  }
  Advance();
}

void GenerateReactor::OnCancel() {
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    cancelled_ = true;
  }
  Advance();
}

void GenerateReactor::TakeOutput() {
  StreamOutput output = active_.stream->Take();
  const bool has_prompt = !output.prompt_logprobs.empty();
  for (SequenceDelta& delta : output.deltas) {
    const bool with_logprobs = !delta.tokens.empty() && delta.tokens.front().chosen.rank > 0;
    outbox_.push_back(EncodeDelta(active_.client_id, delta, with_logprobs));
  }
  if (has_prompt) {
    if (outbox_.empty()) outbox_.emplace_back().set_request_id(active_.client_id);
    for (const TokenOutput& token : output.prompt_logprobs) {
      *outbox_.front().add_prompt_logprobs() = EncodeLogprobs(token);
    }
  }
  if (output.ended) {
    ended_ = true;
    end_status_ = output.status;
  }
}

void GenerateReactor::Advance() {
  // gRPC is called under the lock: no reaction runs within these calls, and OnDone waits for it.
  const std::lock_guard lock(mutex_);
  if (writing_ || finished_) return;
  if (cancelled_) {
    if (!ended_) admission_.Cancel(active_.stream->id());
    return End(CancellationStatus(active_.arrival, active_.deadline, absl::Now()));
  }
  if (outbox_.empty() && !ended_) TakeOutput();
  if (outbox_.empty()) {
    if (ended_) End(end_status_);
    return;
  }
  in_flight_ = std::move(outbox_.front());
  outbox_.pop_front();
  writing_ = true;
  if (!ended_ || !outbox_.empty()) {
    StartWrite(&in_flight_);
    return;
  }
  finished_ = true;
  RecordRequestEnd(active_, end_status_, admission_.statistics());
  StartWriteAndFinish(&in_flight_, grpc::WriteOptions(), ToGrpcStatus(end_status_));
}

void GenerateReactor::End(const absl::Status& status) {
  finished_ = true;
  RecordRequestEnd(active_, status, admission_.statistics());
  Finish(ToGrpcStatus(status));
}

void GenerateReactor::OnDone() {
  std::shared_ptr<ResponseStream> stream;
  {
    const std::lock_guard lock(mutex_);
    stream = active_.stream;
  }
  if (stream != nullptr) stream->Detach();
  delete this;
}

}  // namespace moesaic
