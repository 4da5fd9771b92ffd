#include "engine/engine.h"

#include <thread>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "engine/engine_core.h"
#include "engine/request_queue.h"

namespace moesaic {
namespace {

// The core and the thread that runs it.
class ThreadedEngine final : public Engine {
 public:
  ThreadedEngine(const EngineOptions& options,
                 std::unique_ptr<Model> model,
                 std::unique_ptr<RoutingTap> routing_tap,
                 KvCache cache,
                 int32_t sliding_window,
                 const kernels::KernelTable& kernels,
                 MetricsRegistry& metrics)
      : options_(options),
        queue_(options.max_sequences + options.max_queue),
        core_(options,
              std::move(model),
              std::move(routing_tap),
              std::move(cache),
              sliding_window,
              kernels,
              metrics,
              queue_),
        thread_([this] { Loop(); }) {}

  ~ThreadedEngine() override {
    queue_.Stop();
    thread_.join();
  }

  absl::Status Submit(Request request, std::shared_ptr<TextSink> sink) override {
    MOESAIC_RETURN_IF_ERROR(CheckFits(request));
    return queue_.Push({.request = std::move(request), .sink = std::move(sink)});
  }

  void Cancel(RequestId id) override { queue_.Cancel(id); }
  EngineLoad load() const override { return core_.load(); }
  const Model& model() const override { return core_.model(); }
  int32_t max_model_len() const override { return options_.max_model_len; }
  bool replays_routing() const override { return !options_.routing.replay.empty(); }
  void Drain(absl::Time deadline) override { queue_.Drain(deadline); }
  void SetHeld(bool held) override { queue_.SetHeld(held); }

 private:
  absl::Status CheckFits(const Request& request) const {
    const int64_t prompt_tokens = static_cast<int64_t>(request.prompt.size());
    if (prompt_tokens == 0) return absl::InvalidArgumentError("prompt: it has no tokens");
    if (prompt_tokens + request.params.max_tokens > options_.max_model_len) {
      return absl::InvalidArgumentError(StrCat(
          "prompt of ", prompt_tokens, " tokens and max_tokens of ", request.params.max_tokens,
          ": together at most ", options_.max_model_len, " are served"));
    }
    const int32_t vocab_size = core_.model().config().vocab_size;
    for (int64_t i = 0; i < prompt_tokens; ++i) {
      if (request.prompt[i] < 0 || request.prompt[i] >= vocab_size) {
        return absl::InvalidArgumentError(StrCat("prompt: token ", i, " is ", request.prompt[i],
                                                 ", expected 0 to ", vocab_size - 1));
      }
    }
    if (request.params.n > options_.max_sequences) {
      return absl::InvalidArgumentError(StrCat("n: got ", request.params.n, ", but at most ",
                                               options_.max_sequences, " sequences run at once"));
    }
    return absl::OkStatus();
  }

  void Loop() {
    QueuedWork work;
    absl::Time next_deadline = absl::InfiniteFuture();
    while (true) {
      queue_.Take(/*idle=*/!core_.HasWork(), next_deadline, work);
      for (Submission& submission : work.submissions) core_.Accept(std::move(submission));
      for (RequestId id : work.cancellations) core_.Cancel(id);
      next_deadline = core_.ExpireDeadlines(absl::Now());
      if (work.stopping) core_.CancelAll();
      core_.Settle();
      if (work.stopping) return;
      if (core_.HasWork() && !work.held) {
        core_.Step();
        core_.Settle();
      }
    }
  }

  const EngineOptions options_;
  RequestQueue queue_;
  EngineCore core_;
  std::thread thread_;  // last: it runs on the members above
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options,
                                                       std::unique_ptr<Model> model,
                                                       const kernels::KernelTable& kernels,
                                                       MetricsRegistry& metrics) {
  const KvShape shape = model->kv_shape();
  MOESAIC_ASSIGN_OR_RETURN(const EngineOptions complete,
                           ResolveEngineOptions(options, model->config(), shape));
  MOESAIC_ASSIGN_OR_RETURN(KvCache cache, KvCache::Create(shape, complete.kv_memory_bytes));
  std::unique_ptr<RoutingTap> routing_tap;
  if (options.routing.enabled()) {
    MOESAIC_ASSIGN_OR_RETURN(routing_tap, RoutingTap::Create(options.routing, *model));
  }
  const int32_t sliding_window = LargestSlidingWindow(model->config(), complete.max_model_len);
  return std::make_unique<ThreadedEngine>(complete, std::move(model), std::move(routing_tap),
                                          std::move(cache), sliding_window, kernels, metrics);
}

}  // namespace moesaic
