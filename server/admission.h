#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/generation_request.h"
#include "server/request_statistics.h"
#include "server/response_stream.h"
#include "server/served_model.h"
#include "server/stream_waker.h"

namespace moesaic {

// A request that the engine has accepted.
struct AdmittedRequest {
  std::shared_ptr<ResponseStream> stream;
  std::string client_id;
  int32_t prompt_tokens = 0;
  absl::Time arrival;
  absl::Time deadline = absl::InfiniteFuture();
};

// Where a request is refused or let in: state of the server, the model's name, room in the queue
// (before any work is spent on the request), then the prompt and the parameters.
//
// Owner: main. Thread: any. `waker` must outlive it.
class Admission {
 public:
  Admission(const StreamOptions& stream_options, StreamWaker& waker);
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // The model is loaded: requests are accepted from now on. `limits` are the engine's.
  void Serve(const ServedModel& model, int32_t max_sequences, int32_t max_queue);
  // From now on new requests are refused with UNAVAILABLE; running ones go on.
  void StartDraining() { draining_ = true; }

  bool loaded() const { return model_.load() != nullptr; }
  bool draining() const { return draining_; }
  bool serving() const { return loaded() && !draining(); }
  int32_t max_sequences() const { return max_sequences_; }
  int32_t max_queue() const { return max_queue_; }
  // Whether answers are not the model's (Engine::replays_routing).
  bool routing_replayed() const;

  // The served model, when `name` is empty or its name. Unavailable while it loads, NotFound for
  // another name.
  absl::StatusOr<const ServedModel*> FindModel(std::string_view name) const;

  // Checks, tokenizes and submits. `listener` hears of the stream's output from the moment of the
  // call. `whole`: one answer at the end.
  absl::StatusOr<AdmittedRequest> Submit(GenerationRequest request,
                                         bool whole,
                                         StreamListener* listener);
  // The engine ends the request within two steps.
  void Cancel(RequestId id);

  RequestStatistics& statistics() { return statistics_; }

 private:
  absl::StatusOr<std::vector<int32_t>> Tokenize(const ServedModel& model,
                                                GenerationRequest& request) const;

  const StreamOptions stream_options_;
  StreamWaker& waker_;
  std::atomic<const ServedModel*> model_{nullptr};
  std::atomic<bool> draining_{false};
  std::atomic<int32_t> max_sequences_{0};
  std::atomic<int32_t> max_queue_{0};
  std::atomic<int32_t> in_flight_{0};  // requests admitted and not ended
  std::atomic<RequestId> next_id_{1};
  RequestStatistics statistics_;
};

// Checks a prompt and parameters against the model, and lets a default max_tokens give way to a
// long prompt. InvalidArgument naming the field.
absl::Status CheckRequest(const ServedModel& model,
                          const std::vector<int32_t>& prompt,
                          GenerationRequest& request);

}  // namespace moesaic
