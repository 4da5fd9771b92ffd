#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/check.h"
#include "memory/expert_policy.h"
#include "memory/stripe_arena.h"
#include "memory/stripe_keys.h"

namespace moesaic {

// Which stripes are in which slots: a state machine without thread or I/O, the same for the live
// engine and for replaying traces in virtual time.
//
// A stripe is absent, loading (it has a slot that bytes are being copied to) or resident. An expert
// may be resident in part. The policy ranks experts; of the victim the highest stripes go first, so
// that what stays is a prefix, which is what a layer needs first. A pinned stripe keeps its slot.
//
// Owner: ExpertMemory. Thread: externally synchronised. No allocation after construction. Stripes
// and experts are named by the keys of `keys()`; time is the tick of memory/expert_policy.h.
class ExpertCache {
 public:
  enum class State : uint8_t { kAbsent, kLoading, kResident };

  struct Counters {
    int64_t evicted_stripes = 0;  // whose slot went to another stripe
    int64_t wasted_stripes = 0;   // prefetched and gone without a use
    int64_t used_prefetches = 0;  // prefetched stripes that were used
  };

  // `keys` is valid and the arena has a slot.
  ExpertCache(const StripeKeys& keys, StripeArena arena, std::unique_ptr<ExpertPolicy> policy);

  const StripeKeys& keys() const { return keys_; }
  const StripeArena& arena() const { return arena_; }
  const Counters& counters() const { return counters_; }
  bool keeps_consumed() const { return keeps_consumed_; }
  int64_t now() const { return now_; }

  State state(int32_t stripe) const { return stripes_[stripe].state; }
  // The slot of a stripe that is not absent.
  SlotRef slot(int32_t stripe) const { return stripes_[stripe].slot; }
  std::byte* Data(int32_t stripe) const { return stripes_[stripe].data; }
  // Brought by a prefetch and not used so far.
  bool unused_prefetch(int32_t stripe) const { return stripes_[stripe].unused_prefetch; }
  // Loading or resident.
  int32_t held_stripes(int32_t expert) const { return experts_[expert].held; }

  // Time goes on; ticks never decrease.
  void Advance(int64_t tick);
  // The gate chose the expert at now(). A forecast use up to now() is thereby over.
  void Use(int32_t expert, int32_t rows);
  // A plan expects the expert at `tick`: until then no prefetch for the same tick or a later one
  // takes its stripes. Of several such ticks the nearest counts.
  void Expect(int32_t expert, int64_t tick);
  // The tick of Expect(), or -1.
  int64_t expected(int32_t expert) const { return experts_[expert].expected; }

  // Gives an absent stripe a slot: a free one, else an unpinned stripe's that the policy names. It
  // is loading afterwards. False when there is none; a demand may take more than a prefetch for
  // `tick`, see Expect().
  bool BeginDemand(int32_t stripe);
  bool BeginPrefetch(int32_t stripe, int64_t tick);
  // Makes a loading stripe resident, or absent again when its copy failed.
  void FinishLoad(int32_t stripe);
  void AbandonLoad(int32_t stripe);
  // A loading prefetch turned out to be needed: it counts as used.
  void MarkUsed(int32_t stripe);

  // Keeps a resident stripe in its slot until as many Unpin() calls; counts as its use.
  SlotRef Pin(int32_t stripe) { return Pin(stripe, experts_[keys_.ExpertOf(stripe)]); }
  // `slot` as Pin() returned it: a stale one ends the process.
  void Unpin(int32_t stripe, SlotRef slot) {
    Unpin(stripe, slot, experts_[keys_.ExpertOf(stripe)]);
  }
  // Pins the resident ones of an expert's stripes, and says where they are: slots, data and true at
  // their numbers in the three arrays of stripes_per_expert. Returns how many.
  int32_t PinResident(int32_t expert, SlotRef* slots, const void** data, bool* pinned);
  // Unpins `count` stripes of an expert from `first` on.
  void UnpinRange(int32_t expert, int32_t first, int32_t count, const SlotRef* slots);
  // Gives the slot of a resident, unpinned stripe back.
  void Release(int32_t stripe);

 private:
  struct Stripe {
    std::byte* data = nullptr;
    SlotRef slot;
    uint16_t pins = 0;
    State state = State::kAbsent;
    bool unused_prefetch = false;
  };
  struct Expert {
    int64_t expected = -1;
    int32_t held = 0;       // loading or resident stripes
    int32_t evictable = 0;  // resident, unpinned stripes
  };

  SlotRef Pin(int32_t stripe, Expert& expert) {
    Stripe& entry = stripes_[stripe];
    MOESAIC_CHECK(entry.state == State::kResident);
    if (entry.pins++ == 0) --expert.evictable;
    if (entry.unused_prefetch) MarkUsed(stripe);
    return entry.slot;
  }
  void Unpin(int32_t stripe, SlotRef slot, Expert& expert) {
    Stripe& entry = stripes_[stripe];
    MOESAIC_CHECK(entry.pins > 0 && entry.slot.slot == slot.slot &&
                  entry.slot.generation == slot.generation);
    if (--entry.pins == 0) ++expert.evictable;
  }
  bool BeginLoad(int32_t stripe, bool prefetch, int64_t tick);
  bool EvictOne(bool prefetch, int64_t tick);
  void LoseSlot(int32_t stripe);

  const StripeKeys keys_;
  StripeArena arena_;
  const std::unique_ptr<ExpertPolicy> policy_;
  const bool keeps_consumed_;
  int64_t now_ = 0;
  std::vector<Stripe> stripes_;
  std::vector<Expert> experts_;
  Counters counters_;
};

}  // namespace moesaic
