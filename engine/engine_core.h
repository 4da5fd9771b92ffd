#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "batcher/batcher.h"
#include "engine/engine.h"
#include "engine/engine_metrics.h"
#include "engine/expert_tier_metrics.h"
#include "engine/request_queue.h"
#include "engine/routing_tap.h"
#include "engine/sampler.h"
#include "engine/sequence.h"
#include "engine/step_builder.h"
#include "memory/kv_block_manager.h"
#include "memory/kv_cache.h"
#include "model/model.h"

namespace moesaic {

// Everything that the engine thread owns: accepted requests, KV blocks, the model, the sampler. A
// step is five verbs: preempt and plan, build, run the blocks, sample, hand over.
//
// Owner: Engine. Thread: the engine's, but for load().
class EngineCore {
 public:
  // `options` is complete: max_model_len is set. `queue` hears of ended requests. `routing_tap` may
  // be null.
  EngineCore(const EngineOptions& options,
             std::unique_ptr<Model> model,
             std::unique_ptr<RoutingTap> routing_tap,
             KvCache cache,
             int32_t sliding_window,
             const kernels::KernelTable& kernels,
             MetricsRegistry& metrics,
             RequestQueue& queue);

  const Model& model() const { return *model_; }
  // Blocks that a sequence of `num_tokens` needs at a time, and those there are. Any thread.

  void Accept(Submission submission);
  void Cancel(RequestId id);
  // Ends requests whose deadline passed; returns the earliest deadline of the others.
  absl::Time ExpireDeadlines(absl::Time now);
  void CancelAll();

  bool HasWork() const { return !running_.empty() || !waiting_.empty(); }
  // One iteration over at least one row. HasWork() must hold.
  void Step();
  // Publishes the load and tells sinks about requests that ended since the last call. Called after
  // every change above.
  void Settle();

  // Any thread.
  EngineLoad load() const;

 private:
  void Schedule();
  void Preempt(Sequence& sequence);
  void Admit(int32_t count);
  const SequenceView* NextWaiting();
  absl::Status RunModel();
  // Ends the requests of rows whose experts could not be brought.
  void EndFailedRows();
  void Advance(const ScheduledSequence& scheduled, absl::Time now);
  void CollectPromptLogprobs(const ScheduledSequence& scheduled, int32_t begin);
  void Fork(Sequence& first);
  void SampleNext(Sequence& sequence, std::span<const float> logits, absl::Time now);
  FinishReason ReasonToFinish(const Sequence& sequence, TextSink::Verdict verdict) const;
  void FinishSequence(Sequence& sequence, FinishReason reason);
  void EndRequest(ActiveRequest& request, FinishReason reason, absl::Status status);
  void MarkDelivered(ActiveRequest& request);
  std::span<const float> LogitsRow(int32_t index) const;

  const EngineOptions options_;
  const std::unique_ptr<Model> model_;
  const std::unique_ptr<RoutingTap> routing_tap_;
  const KvCache cache_;
  const kernels::KernelTable& kernels_;
  EngineMetrics metrics_;
  std::optional<ExpertTierMetrics> tier_metrics_;
  RequestQueue& queue_;
  KvBlockManager blocks_;
  StepBuilder builder_;
  Sampler sampler_;
  StepBudget budget_;

  absl::flat_hash_map<RequestId, std::unique_ptr<ActiveRequest>> requests_;
  std::vector<Sequence*> running_;  // by arrival
  std::deque<Sequence*> waiting_;   // by arrival
  uint64_t last_arrival_ = 0;
  std::mt19937_64 seeds_;  // for requests that name none

  // Of the current step; members to keep their capacity.
  StepPlan plan_;
  std::vector<SequenceView> views_;
  std::vector<KvBlockManager::PrefixMatch> prefixes_;  // of the waiting sequences looked at
  SequenceView waiting_view_;
  std::vector<ActiveRequest*> delivered_;
  std::vector<std::pair<ActiveRequest*, absl::Status>> ended_;

  std::atomic<int32_t> running_requests_{0};
  std::atomic<int32_t> used_blocks_{0};
};

}  // namespace moesaic
