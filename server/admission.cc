#include "server/admission.h"

#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

constexpr size_t kMaxClientIdBytes = 256;

}  // namespace

Admission::Admission(const StreamOptions& stream_options, StreamWaker& waker)
    : stream_options_(stream_options), waker_(waker) {}

void Admission::Serve(const ServedModel& model, int32_t max_sequences, int32_t max_queue) {
  max_sequences_ = max_sequences;
  max_queue_ = max_queue;
  model_ = &model;
}

bool Admission::routing_replayed() const {
  const ServedModel* model = model_.load();
  return model != nullptr && model->engine->replays_routing();
}

absl::StatusOr<const ServedModel*> Admission::FindModel(std::string_view name) const {
  const ServedModel* model = model_;
  if (model == nullptr) return absl::UnavailableError("the model is still loading");
  if (!name.empty() && name != model->name) {
    return absl::NotFoundError(StrCat("unknown model \"", name.substr(0, 128),
                                      "\"; this server serves \"", model->name, "\""));
  }
  return model;
}

absl::StatusOr<std::vector<int32_t>> Admission::Tokenize(const ServedModel& model,
                                                         GenerationRequest& request) const {
  if (auto* ids = std::get_if<std::vector<int32_t>>(&request.prompt)) return std::move(*ids);
  if (model.tokenizer == nullptr) {
    return absl::FailedPreconditionError(
        StrCat("model \"", model.name,
               "\" has no tokenizer files: give the prompt as token ids, not as text"));
  }
  return model.tokenizer->Encode(std::get<std::string>(request.prompt), request.encode);
}

absl::Status CheckRequest(const ServedModel& model,
                          const std::vector<int32_t>& prompt,
                          GenerationRequest& request) {
  const int32_t max_model_len = model.engine->max_model_len();
  if (prompt.empty()) {
    return absl::InvalidArgumentError(
        StrCat("prompt: it has no tokens, expected text or token ids of 1 to ", max_model_len - 1));
  }
  if (prompt.size() >= static_cast<size_t>(max_model_len)) {
    return absl::InvalidArgumentError(StrCat("prompt: ", prompt.size(),
                                             " tokens; with at least one new one the model takes ",
                                             max_model_len));
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= model.config.vocab_size) {
      return absl::InvalidArgumentError(StrCat("prompt: token id ", prompt[i], " at position ", i,
                                               ", expected 0 to ", model.config.vocab_size - 1));
    }
  }
  SamplingParams& params = request.params;
  const int32_t room = max_model_len - static_cast<int32_t>(prompt.size());
  if (!request.max_tokens_given) {
    params.max_tokens = std::min(params.max_tokens, room);
  } else if (params.max_tokens > room) {
    return absl::InvalidArgumentError(StrCat("max_tokens: got ", params.max_tokens, ", but ",
                                             prompt.size(), " prompt tokens leave room for ", room,
                                             " of the model's ", max_model_len));
  }
  if (model.tokenizer == nullptr) {
    if (!params.stop.empty()) {
      return absl::FailedPreconditionError(
          StrCat("stop: model \"", model.name, "\" has no tokenizer; use stop_token_ids"));
    }
    if (request.detokenize_required) {
      return absl::FailedPreconditionError(
          StrCat("text was asked for, but model \"", model.name, "\" has no tokenizer"));
    }
  }
  if (!request.detokenize && !params.stop.empty()) {
    return absl::InvalidArgumentError("stop: stop strings need detokenize");
  }
  return ValidateSamplingParams(params, model.limits);
}

absl::StatusOr<AdmittedRequest> Admission::Submit(GenerationRequest request,
                                                  bool whole,
                                                  StreamListener* listener) {
  const absl::Time arrival = absl::Now();
  MOESAIC_ASSIGN_OR_RETURN(const ServedModel* model, FindModel(request.model));
  if (draining()) return absl::UnavailableError("the server is shutting down");
  if (request.deadline <= arrival) return absl::DeadlineExceededError("the deadline has passed");
  if (request.client_id.size() > kMaxClientIdBytes) {
    return absl::InvalidArgumentError(StrCat("request id: ", request.client_id.size(),
                                             " bytes, expected at most ", kMaxClientIdBytes));
  }
  // A place in the queue comes first, so that overload costs no tokenisation. It is given back when
  // the engine is done, or here.
  const int32_t places = max_sequences_ + max_queue_;
  if (in_flight_.fetch_add(1) >= places) {
    --in_flight_;
    return absl::ResourceExhaustedError(
        StrCat("the queue is full: ", places, " requests are running or waiting"));
  }
  std::shared_ptr<std::atomic<int32_t>> place(&in_flight_,
                                              [](std::atomic<int32_t>* count) { --*count; });

  MOESAIC_ASSIGN_OR_RETURN(std::vector<int32_t> prompt, Tokenize(*model, request));
  MOESAIC_RETURN_IF_ERROR(CheckRequest(*model, prompt, request));

  AdmittedRequest active;
  const RequestId id = next_id_++;
  active.client_id = request.client_id.empty() ? StrCat("moesaic-", id) : request.client_id;
  active.prompt_tokens = static_cast<int32_t>(prompt.size());
  active.arrival = arrival;
  active.deadline = request.deadline;
  StreamOptions stream_options = stream_options_;
  stream_options.whole = whole;
  stream_options.detokenize = request.detokenize;
  active.stream = std::make_shared<ResponseStream>(
      id, request.params, model->config.eos_token_ids, prompt, model->tokenizer.get(),
      stream_options, waker_, listener, [place = std::move(place)]() mutable { place.reset(); });
  MOESAIC_RETURN_IF_ERROR(model->engine->Submit(Request{.id = id,
                                                        .client_id = active.client_id,
                                                        .prompt = std::move(prompt),
                                                        .params = std::move(request.params),
                                                        .arrival = arrival,
                                                        .deadline = request.deadline},
                                                active.stream));
  waker_.Watch(active.stream);
  return active;
}

void Admission::Cancel(RequestId id) {
  const ServedModel* model = model_;
  if (model != nullptr) model->engine->Cancel(id);
}

}  // namespace moesaic
