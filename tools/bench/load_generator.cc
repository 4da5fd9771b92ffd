#include "tools/bench/load_generator.h"

#include <grpcpp/grpcpp.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/progress.h"
#include "base/str_cat.h"

namespace moesaic::bench {
namespace {

// Seconds since the run began, on the monotonic clock.
class RunClock {
 public:
  double Now() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Counts requests in flight; the dispatcher waits on it.
class InFlight {
 public:
  explicit InFlight(int32_t limit) : limit_(limit) {}

  void Enter() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &InFlight::HasRoom));
    ++count_;
  }
  void Leave() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    --count_;
    ++ended_;
  }
  int64_t WaitForEnded(int64_t at_least) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [this, at_least]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_ >= at_least; };
    mutex_.Await(absl::Condition(&reached));
    return ended_;
  }
  int64_t ended() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return ended_;
  }

 private:
  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return limit_ == 0 || count_ < limit_;
  }

  const int32_t limit_;
  absl::Mutex mutex_;
  int32_t count_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t ended_ ABSL_GUARDED_BY(mutex_) = 0;
};

// One streamed request. Owned by RunLoad; its callbacks run on gRPC's threads, one at a time, until
// OnDone.
class StreamedRequest final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  StreamedRequest(const RunClock& clock, InFlight& in_flight, RequestTrace& trace)
      : clock_(clock), in_flight_(in_flight), trace_(trace) {}

  void Start(v1::Inference::StubInterface& stub, const WorkItem& item, const LoadOptions& options) {
    if (const auto* text = std::get_if<std::string>(&item.prompt)) {
      request_.set_text(*text);
    } else {
      const auto& ids = std::get<std::vector<int32_t>>(item.prompt);
      request_.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    }
    v1::SamplingParams& sampling = *request_.mutable_sampling();
    sampling.set_max_tokens(item.max_tokens);
    sampling.set_ignore_eos(options.ignore_eos);
    sampling.set_temperature(options.temperature);
    context_.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
    trace_.sent_s = clock_.Now();
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (response_.token_ids_size() > 0) {
      trace_.chunk_s.push_back(clock_.Now());
      trace_.chunk_tokens.push_back(response_.token_ids_size());
    }
    if (response_.has_usage()) {
      trace_.prompt_tokens = response_.usage().prompt_tokens();
      trace_.output_tokens = response_.usage().completion_tokens();
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    trace_.ok = status.ok();
    if (!status.ok())
      trace_.error =
          StrCat("code ", static_cast<int>(status.error_code()), ": ", status.error_message());
    in_flight_.Leave();
  }

 private:
  const RunClock& clock_;
  InFlight& in_flight_;
  RequestTrace& trace_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse response_;
};

}  // namespace

std::vector<RequestTrace> RunLoad(v1::Inference::StubInterface& stub,
                                  std::span<const WorkItem> items,
                                  std::span<const double> arrivals,
                                  const LoadOptions& options) {
  std::vector<RequestTrace> traces(items.size());
  std::vector<std::unique_ptr<StreamedRequest>> requests(items.size());
  InFlight in_flight(options.max_concurrency);
  std::optional<ProgressLine> progress;
  if (options.progress) progress.emplace("requests", items.size(), ProgressUnit::kItems);
  int64_t shown = 0;
  const auto show = [&](int64_t ended) {
    if (progress) progress->Advance(static_cast<uint64_t>(ended - shown));
    shown = ended;
  };

  const RunClock clock;
  for (size_t i = 0; i < items.size(); ++i) {
    const double wait_s = arrivals[i] - clock.Now();
    if (wait_s > 0) absl::SleepFor(absl::Seconds(wait_s));
    // With a concurrency limit the arrival process is what the limit lets through; lateness shows
    // by how much.
    in_flight.Enter();
    traces[i].intended_s = arrivals[i];
    requests[i] = std::make_unique<StreamedRequest>(clock, in_flight, traces[i]);
    requests[i]->Start(stub, items[i], options);
    show(in_flight.ended());
  }
  while (shown < static_cast<int64_t>(items.size())) show(in_flight.WaitForEnded(shown + 1));
  return traces;
}

}  // namespace moesaic::bench
