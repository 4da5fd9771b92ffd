#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/metrics.h"
#include "core/request.h"
#include "core/text_sink.h"
#include "engine/engine_options.h"
#include "memory/kv_cache.h"
#include "model/model.h"

namespace moesaic {

// A moment's load, for routers and the GetLoad call.
struct EngineLoad {
  int32_t running = 0;
  int32_t waiting = 0;  // at most max_queue
  int32_t kv_blocks_total = 0;
  int32_t kv_blocks_used = 0;  // held by sequences; blocks kept only for prefix reuse count as free
};

// The loop: accept, schedule, forward, sample, hand over. Owns the engine thread (which is the
// executor of the CPU device), the model, the KV cache and every running sequence.
class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options,
                                                        std::unique_ptr<Model> model,
                                                        const kernels::KernelTable& kernels,
                                                        MetricsRegistry& metrics);
  // Cancels what is running and joins the thread.
  virtual ~Engine() = default;

  // Any thread; never blocks on compute. The checked request is accepted (OK: `sink` will get
  // exactly one OnEnd) or refused at once, and then `sink` is never called: ResourceExhausted when
  // max_sequences + max_queue are taken, InvalidArgument when the prompt and max_tokens cannot fit,
  // Unavailable after Drain.
  virtual absl::Status Submit(Request request, std::shared_ptr<TextSink> sink) = 0;
  // Any thread. The request ends within two steps with CANCELLED; unknown ids are ignored.
  virtual void Cancel(RequestId id) = 0;

  virtual EngineLoad load() const = 0;
  virtual const Model& model() const = 0;
  // Tokens of prompt and output together that one sequence can have; the KV cache holds as many.
  virtual int32_t max_model_len() const = 0;
  // Whether gates choose as in a trace, for a benchmark: answers are not the model's then.
  virtual bool replays_routing() const = 0;

  // Refuses new requests; returns when none is left or `deadline` passed, then cancels the rest.
  virtual void Drain(absl::Time deadline) = 0;

  // Test hook: while held, the loop accepts requests but schedules none.
  virtual void SetHeld(bool held) = 0;
};

}  // namespace moesaic
