#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "base/metrics.h"
#include "core/batch.h"
#include "core/text_sink.h"
#include "engine/engine.h"
#include "engine/sequence.h"

namespace moesaic {

// The engine's metrics, by vLLM's names with the prefix moesaic_. Tokens of the prefix cache count
// at a request's first admission. Owner and thread: engine.
class EngineMetrics {
 public:
  explicit EngineMetrics(MetricsRegistry& registry);

  void SetLoad(const EngineLoad& load);
  void PrefixLookup(int32_t queried_tokens, int32_t hit_tokens);
  void Preempted();
  // `counters` are the bytes that the step touched; the memory-bandwidth limit follows from them.
  void StepDone(const Batch& batch, const StepCounters& counters);
  // The first token of `sequence` ends TTFT, a later one an inter-token gap.
  void TokenGenerated(const Sequence& sequence, absl::Time now);
  // Rows of the request are in a step for the first time.
  void RequestScheduled(const ActiveRequest& request);
  void SequenceFinished(FinishReason reason);
  void RequestEnded(const ActiveRequest& request, absl::Time now);

 private:
  // Of steps that held decode rows only, or also a prompt's.
  struct Phase {
    Phase(MetricsRegistry& registry, const char* name);

    prometheus::Counter& steps;
    prometheus::Counter& dense_bytes;
    prometheus::Counter& expert_bytes;
    prometheus::Counter& kv_bytes;
  };

  prometheus::Gauge& requests_running_;
  prometheus::Gauge& requests_waiting_;
  prometheus::Gauge& kv_cache_usage_;
  prometheus::Counter& prefix_queries_;
  prometheus::Counter& prefix_hits_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generation_tokens_;
  prometheus::Counter& preemptions_;
  prometheus::Counter& finished_stop_;
  prometheus::Counter& finished_length_;
  prometheus::Counter& finished_abort_;
  prometheus::Counter& finished_error_;
  Phase decode_;
  Phase mixed_;
  prometheus::Histogram& iteration_tokens_;
  prometheus::Histogram& time_to_first_token_;
  prometheus::Histogram& inter_token_latency_;
  prometheus::Histogram& e2e_latency_;
  prometheus::Histogram& queue_time_;
  prometheus::Histogram& prefill_time_;
  prometheus::Histogram& decode_time_;
  prometheus::Histogram& request_prompt_tokens_;
  prometheus::Histogram& request_generation_tokens_;
};

}  // namespace moesaic
