#include "server/kserve_infer_reactor.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/grpc_status.h"

namespace moesaic {

KserveInferReactor::KserveInferReactor(const inference::ModelInferRequest& request,
                                       inference::ModelInferResponse& response,
                                       Admission& admission,
                                       grpc::CallbackServerContext& context)
    : admission_(admission), context_(context), response_(response) {
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

absl::Status KserveInferReactor::Start(const inference::ModelInferRequest& request) {
  MOESAIC_ASSIGN_OR_RETURN(const ServedModel* model, admission_.FindModel(request.model_name()));
  MOESAIC_ASSIGN_OR_RETURN(InferCall call, DecodeInferRequest(request, *model));
  if (call.stream) {
    return absl::InvalidArgumentError("stream: true needs ModelStreamInfer");
  }
  if (call.num_sequences != 1) {
    return absl::InvalidArgumentError("n: more than one sequence needs ModelStreamInfer");
  }
  GenerationRequest generation = std::move(call.request);
  generation.deadline = std::min(generation.deadline, ClientDeadline(context_));
  if (generation.client_id.empty()) generation.client_id = ClientMetadata(context_, kRequestIdKey);
  const std::lock_guard lock(mutex_);
  call_ = std::move(call);
  model_name_ = model->name;
  MOESAIC_ASSIGN_OR_RETURN(active_, admission_.Submit(std::move(generation), true, this));
  return absl::OkStatus();
}

void KserveInferReactor::OnOutputReady(ResponseStream& stream) {
  StreamOutput output = stream.Take();
  if (!output.ended) return;
  if (output.status.ok()) {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    // One sequence, so one delta.
    for (const SequenceDelta& delta : output.deltas) {
      response_ = EncodeInferResponse(call_, model_name_, delta, call_.input_text);
    }
  }
  End(output.status, false);
}

void KserveInferReactor::OnStalled(ResponseStream&) { context_.TryCancel(); }

void KserveInferReactor::OnCancel() {
  absl::Status status;
  {
    const std::lock_guard lock(mutex_);
    status = CancellationStatus(active_.arrival, active_.deadline, absl::Now());
  }
  End(status, true);
}

void KserveInferReactor::End(const absl::Status& status, bool abandon) {
  // Under the lock, so that OnDone, which may follow at once, waits for it.
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  if (abandon) admission_.Cancel(active_.stream->id());
  RecordRequestEnd(active_, status, admission_.statistics());
  Finish(ToGrpcStatus(status));
}

void KserveInferReactor::OnDone() {
  std::shared_ptr<ResponseStream> stream;
  {
    const std::lock_guard lock(mutex_);
    stream = active_.stream;
  }
  if (stream != nullptr) stream->Detach();
  delete this;
}

}  // namespace moesaic
