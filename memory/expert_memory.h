#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/prefetch_plan.h"
#include "memory/copy_engine.h"
#include "memory/device.h"
#include "memory/expert_cache.h"
#include "memory/expert_policy.h"
#include "memory/stripe_source.h"

namespace moesaic {

// What happened so far, in stripes unless it says otherwise. Hits and misses are counted when a
// layer asks for its experts.
struct ExpertMemoryMetrics {
  int64_t expert_hits = 0;          // wholly resident
  int64_t expert_partial_hits = 0;  // resident or on the way in part
  int64_t expert_misses = 0;
  int64_t hits = 0;              // resident stripes
  int64_t late = 0;              // a prefetch was on its way
  int64_t misses = 0;            // absent
  int64_t demanded_bytes = 0;    // copied for a waiting layer, promoted prefetches included
  int64_t prefetched_bytes = 0;  // copied ahead of use
  int64_t wasted_bytes = 0;      // prefetched and gone unused
  int64_t used_prefetched_bytes = 0;
  int64_t evictions = 0;   // slots taken from one stripe for another
  int64_t surrenders = 0;  // of these, stripes that the running layer had to load again
  int64_t failed_copies = 0;
  int64_t cancelled_prefetches = 0;
  double stall_seconds = 0;  // the executor waited for a copy
  int64_t slot_bytes = 0;
  int64_t budget_bytes = 0;  // of all slots
  int64_t used_bytes = 0;    // of slots that are taken
  int64_t high_water_bytes = 0;
  CopyEngine::Counters copies;  // queue lengths, bytes by class, bandwidth
};

// Experts in the fast tier, for the layers that run them: what is resident is used at once, what is
// missing is brought and used as it lands. Exact whatever the budget: two slots are enough, since a
// stripe that was used makes room before its layer ends.
//
//   memory.BeginLayer(layer, tick, active);
//   for (;;) {
//     ASSIGN_OR_RETURN(auto ready, memory.WaitReady());    // EndLayer() also after an error
//     if (ready.empty()) break;
//     ... run the kernel on them ...
//     memory.Consume(ready);
//   }
//   memory.EndLayer();
//
// Owner: the model. Thread: one executor thread; Prefetch(), CancelPrefetches(),
// WaitIdle() and metrics() from any. Lifetime: device and source outlive it; the destructor waits
// for copies that have started. No allocation after Create, but for errors.
class ExpertMemory final : private CopyClient {
 public:
  struct Options {
    int64_t budget_bytes = 0;
    CopyEngine::Options copies = {};
  };

  // An expert that the gate chose, for so many rows.
  struct ActiveExpert {
    int32_t expert = 0;
    int32_t rows = 0;
  };

  // Consecutive stripes that a kernel may read until Consume().
  struct ReadyStripes {
    int32_t index = 0;  // in `active`
    int32_t first_stripe = 0;
    int32_t num_stripes = 0;
    const void* const* pointers = nullptr;  // [num_stripes]
  };

  // A window of two stripes: one is read while the other lands.
  static int64_t MinimumBudgetBytes(int64_t slot_bytes) { return 2 * slot_bytes; }

  // InvalidArgument, naming the smallest that works, when the budget is too small;
  // ResourceExhausted when the device has less. More slots than stripes are not allocated.
  static absl::StatusOr<std::unique_ptr<ExpertMemory>> Create(Device& device,
                                                              StripeSource& source,
                                                              std::unique_ptr<ExpertPolicy> policy,
                                                              const Options& options);
  ~ExpertMemory() override;

  const StripeKeys& keys() const { return keys_; }

  // The gate has spoken: pins what is resident, demands what is missing, most rows first, and
  // cancels queued prefetches for this layer that it did not choose. `layer` is numbered among
  // those with routed experts, `tick` never decreases, the experts are distinct.
  void BeginLayer(int32_t layer, int64_t tick, std::span<const ActiveExpert> active);

  // Takes every stripe that is ready: for each active expert consecutive stripes from the first not
  // yet taken, in the order of `active`. Waits while nothing is ready. Empty when all are taken, or
  // when nothing more fits until taken ones are consumed (stripes_left() > 0 then). An error when
  // copies failed since the last call: of their experts, then in failed(), no further stripes come,
  // and the layer may go on with the others or end. Valid until the next call.
  absl::StatusOr<std::span<const ReadyStripes>> WaitReady();
  // Not yet taken, of experts that have not failed.
  int32_t stripes_left() const;
  // Indices in `active` of the experts that failed in this layer, as far as WaitReady() said so.
  // Executor thread.
  std::span<const int32_t> failed() const { return reported_failures_; }

  // The kernel is done with these: their slots may be reused, and are given back at once if the
  // policy keeps nothing.
  void Consume(std::span<const ReadyStripes> stripes);
  void Consume(const ReadyStripes& stripes) { Consume(std::span(&stripes, 1)); }

  // Leaves no pin and no queued demand, also after an error; no kernel reads the layer's stripes
  // any more.
  void EndLayer();

  // Queues copies of what is absent; what is there already or on its way is not copied again.
  void Prefetch(const PrefetchPlan& plan);
  // Forgets every queued prefetch: a new plan follows.
  void CancelPrefetches();
  // Returns when no copy is under way and none can start.
  void WaitIdle();

  ExpertMemoryMetrics metrics() const;

 private:
  // An active expert of the running layer.
  struct Active {
    int32_t expert = -1;  // key
    int32_t rows = 0;
    int32_t next = 0;  // first stripe not yet taken
    bool failed = false;
  };
  ExpertMemory(StripeArena arena, const StripeKeys& keys, std::unique_ptr<ExpertPolicy> policy);

  // CopyClient.
  std::byte* Place(int32_t stripe, CopyClass copy_class) override;
  void Finished(int32_t stripe, const absl::Status& status) override;

  int32_t Cell(int32_t index, int32_t stripe_number) const {
    return index * keys_.stripes_per_expert + stripe_number;
  }
  // All of the following: the mutex held.
  void PinFor(int32_t index, int32_t stripe_number);
  void Unpin(int32_t index, int32_t stripe_number);
  void GiveBackUnlessKept(int32_t stripe);
  void Demand(int32_t index);
  void CancelUnchosenPrefetches(int32_t layer);
  // The active expert that still needs the stripe, -1 when the running layer does not.
  int32_t NeededBy(int32_t stripe) const;
  void Fail(int32_t index, const absl::Status& status);
  void CollectReady();
  bool Standstill() const;
  void Surrender();
  int32_t NextQueuedDemand(size_t position, int32_t stripe_number) const;

  const StripeKeys keys_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;  // a copy ended or found no room

  // Guarded by the mutex.
  ExpertCache cache_;
  bool in_layer_ = false;
  int32_t layer_ = 0;
  int32_t num_active_ = 0;
  std::vector<Active> active_;         // [num_experts], the first num_active_ are set
  std::vector<int32_t> active_of_;     // [num_experts] index in active_, -1: not active
  std::vector<int32_t> demand_order_;  // indices of active experts with something to load
  std::vector<SlotRef> slots_;         // [active, stripe]
  std::vector<const void*> pointers_;  // [active, stripe]
  std::unique_ptr<bool[]> is_pinned_;  // [active, stripe]
  int32_t left_ = 0;
  int32_t pinned_ = 0;  // true ones in is_pinned_
  int32_t taken_ = 0;   // of these, handed out by WaitReady()
  absl::Status error_;  // the first that WaitReady() has not returned
  std::vector<ReadyStripes> ready_;
  std::vector<int32_t> failures_;           // indices that failed
  std::vector<int32_t> reported_failures_;  // of these, those that WaitReady() spoke of
  std::vector<int32_t> queued_prefetches_;  // by layer: how many prefetches are queued
  bool executor_waits_ = false;
  int32_t idle_waiters_ = 0;
  ExpertMemoryMetrics metrics_;

  std::unique_ptr<CopyEngine> engine_;
};

}  // namespace moesaic
