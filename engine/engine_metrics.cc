#include "engine/engine_metrics.h"

#include <string>
#include <vector>

namespace moesaic {
namespace {

const std::vector<double> kIterationTokens = {1,   8,    16,   32,   64,   128,  256,
                                              512, 1024, 2048, 4096, 8192, 16384};
const std::vector<double> kTimeToFirstToken = {0.001, 0.005, 0.01, 0.02, 0.04,  0.06,  0.08, 0.1,
                                               0.25,  0.5,   0.75, 1.0,  2.5,   5.0,   7.5,  10.0,
                                               20.0,  40.0,  80.0, 160,  640.0, 2560.0};
const std::vector<double> kInterTokenLatency = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
                                                0.3,  0.4,   0.5,  0.75,  1.0, 2.5,  5.0,
                                                7.5,  10.0,  20.0, 40.0,  80.0};
const std::vector<double> kRequestLatency = {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,    2.5,
                                             5.0,  10.0, 15.0, 20.0, 30.0,  40.0,   50.0,
                                             60.0, 120,  240,  480,  960.0, 1920.0, 7680.0};
const std::vector<double> kRequestTokens = {1,   2,    5,    10,   20,    50,    100,   200,
                                            500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

constexpr char kStepsHelp[] = "Engine steps, by whether they held decode rows only";
constexpr char kStepBytesHelp[] = "Weight, distinct-expert and KV bytes that steps read, by kind";

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

}  // namespace

EngineMetrics::EngineMetrics(MetricsRegistry& registry)
    : requests_running_(registry.AddGauge("moesaic_num_requests_running",
                                          "Requests whose rows are in the engine's steps")),
      requests_waiting_(registry.AddGauge("moesaic_num_requests_waiting",
                                          "Accepted requests that wait for a place")),
      kv_cache_usage_(registry.AddGauge(
          "moesaic_kv_cache_usage_perc",
          "Share of KV blocks held by sequences, 0 to 1; blocks kept for prefix reuse are free")),
      prefix_queries_(registry.AddCounter("moesaic_prefix_cache_queries_total",
                                          "Prompt tokens looked up in the prefix cache")),
      prefix_hits_(registry.AddCounter("moesaic_prefix_cache_hits_total",
                                       "Prompt tokens served from the prefix cache")),
      prompt_tokens_(registry.AddCounter("moesaic_prompt_tokens_total",
                                         "Prompt tokens of requests, from a cached prefix or not")),
      generation_tokens_(registry.AddCounter("moesaic_generation_tokens_total", "Tokens sampled")),
      preemptions_(registry.AddCounter("moesaic_num_preemptions_total",
                                       "Sequences that gave up their KV blocks to be recomputed")),
      finished_stop_(registry.AddCounter("moesaic_request_success_total",
                                         "Sequences finished, by reason",
                                         {{"finished_reason", "stop"}})),
      finished_length_(registry.AddCounter("moesaic_request_success_total",
                                           "Sequences finished, by reason",
                                           {{"finished_reason", "length"}})),
      finished_abort_(registry.AddCounter("moesaic_request_success_total",
                                          "Sequences finished, by reason",
                                          {{"finished_reason", "abort"}})),
      finished_error_(registry.AddCounter("moesaic_request_success_total",
                                          "Sequences finished, by reason",
                                          {{"finished_reason", "error"}})),
      decode_(registry, "decode"),
      mixed_(registry, "mixed"),
      iteration_tokens_(registry.AddHistogram("moesaic_iteration_tokens_total",
                                              "Rows (prompt and output tokens) of a step",
                                              kIterationTokens)),
      time_to_first_token_(registry.AddHistogram("moesaic_time_to_first_token_seconds",
                                                 "From a request's arrival to its first token",
                                                 kTimeToFirstToken)),
      inter_token_latency_(registry.AddHistogram("moesaic_inter_token_latency_seconds",
                                                 "Between two tokens of a sequence",
                                                 kInterTokenLatency)),
      e2e_latency_(registry.AddHistogram("moesaic_e2e_request_latency_seconds",
                                         "From a request's arrival to its end",
                                         kRequestLatency)),
      queue_time_(registry.AddHistogram("moesaic_request_queue_time_seconds",
                                        "From a request's arrival to its first step",
                                        kRequestLatency)),
      prefill_time_(registry.AddHistogram("moesaic_request_prefill_time_seconds",
                                          "From a request's first step to its first token",
                                          kRequestLatency)),
      decode_time_(registry.AddHistogram("moesaic_request_decode_time_seconds",
                                         "From a request's first token to its end",
                                         kRequestLatency)),
      request_prompt_tokens_(registry.AddHistogram(
          "moesaic_request_prompt_tokens", "Prompt tokens of an ended request", kRequestTokens)),
      request_generation_tokens_(registry.AddHistogram("moesaic_request_generation_tokens",
                                                       "Tokens sampled for an ended request",
                                                       kRequestTokens)) {}

void EngineMetrics::SetLoad(const EngineLoad& load) {
  requests_running_.Set(load.running);
  requests_waiting_.Set(load.waiting);
  kv_cache_usage_.Set(static_cast<double>(load.kv_blocks_used) / load.kv_blocks_total);
}

void EngineMetrics::PrefixLookup(int32_t queried_tokens, int32_t hit_tokens) {
  prefix_queries_.Increment(queried_tokens);
  prefix_hits_.Increment(hit_tokens);
}

void EngineMetrics::Preempted() { preemptions_.Increment(); }

EngineMetrics::Phase::Phase(MetricsRegistry& registry, const char* name)
    : steps(registry.AddCounter("moesaic_steps_total", kStepsHelp, {{"phase", name}})),
      dense_bytes(registry.AddCounter(
          "moesaic_step_bytes_total", kStepBytesHelp, {{"phase", name}, {"kind", "dense"}})),
      expert_bytes(registry.AddCounter(
          "moesaic_step_bytes_total", kStepBytesHelp, {{"phase", name}, {"kind", "expert"}})),
      kv_bytes(registry.AddCounter(
          "moesaic_step_bytes_total", kStepBytesHelp, {{"phase", name}, {"kind", "kv"}})) {}

void EngineMetrics::StepDone(const Batch& batch, const StepCounters& counters) {
  iteration_tokens_.Observe(batch.num_rows());
  const bool decode_only = batch.sequences.size() == static_cast<size_t>(batch.num_rows());
  Phase& phase = decode_only ? decode_ : mixed_;
  phase.steps.Increment();
  phase.dense_bytes.Increment(static_cast<double>(counters.dense_bytes));
  phase.expert_bytes.Increment(static_cast<double>(counters.expert_bytes));
  phase.kv_bytes.Increment(static_cast<double>(counters.kv_bytes));
}

void EngineMetrics::TokenGenerated(const Sequence& sequence, absl::Time now) {
  generation_tokens_.Increment();
  const ActiveRequest& request = *sequence.request;
  if (sequence.num_tokens() > request.prompt_tokens()) {
    inter_token_latency_.Observe(Seconds(now - sequence.last_token_time));
  } else if (!request.first_token) {
    time_to_first_token_.Observe(Seconds(now - request.request.arrival));
    prefill_time_.Observe(Seconds(now - *request.first_scheduled));
  }
}

void EngineMetrics::RequestScheduled(const ActiveRequest& request) {
  queue_time_.Observe(Seconds(*request.first_scheduled - request.request.arrival));
  prompt_tokens_.Increment(request.prompt_tokens());
}

void EngineMetrics::SequenceFinished(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return finished_stop_.Increment();
    case FinishReason::kLength:
      return finished_length_.Increment();
    case FinishReason::kCancelled:
      return finished_abort_.Increment();
    case FinishReason::kError:
    case FinishReason::kNone:
      return finished_error_.Increment();
  }
}

void EngineMetrics::RequestEnded(const ActiveRequest& request, absl::Time now) {
  e2e_latency_.Observe(Seconds(now - request.request.arrival));
  if (request.first_token) decode_time_.Observe(Seconds(now - *request.first_token));
  request_prompt_tokens_.Observe(request.prompt_tokens());
  request_generation_tokens_.Observe(request.generated_tokens);
}

}  // namespace moesaic
