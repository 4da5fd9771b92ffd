#include "memory/expert_cache.h"

#include <algorithm>
#include <utility>

namespace moesaic {

ExpertCache::ExpertCache(const StripeKeys& keys,
                         StripeArena arena,
                         std::unique_ptr<ExpertPolicy> policy)
    : keys_(keys),
      arena_(std::move(arena)),
      policy_(std::move(policy)),
      keeps_consumed_(policy_->keeps_consumed()),
      stripes_(keys.stripes()),
      experts_(keys.experts()) {
  MOESAIC_CHECK(keys.valid() && arena_.num_slots() > 0);
}

void ExpertCache::Advance(int64_t tick) {
  MOESAIC_CHECK(tick >= now_);
  now_ = tick;
}

void ExpertCache::Use(int32_t expert, int32_t rows) {
  if (experts_[expert].expected <= now_) experts_[expert].expected = -1;
  policy_->OnUse(expert, now_, rows);
}

void ExpertCache::Expect(int32_t expert, int64_t tick) {
  int64_t& expected = experts_[expert].expected;
  if (expected < now_ || tick < expected) expected = tick;
}

bool ExpertCache::BeginDemand(int32_t stripe) { return BeginLoad(stripe, false, 0); }

bool ExpertCache::BeginPrefetch(int32_t stripe, int64_t tick) {
  return BeginLoad(stripe, true, tick);
}

bool ExpertCache::BeginLoad(int32_t stripe, bool prefetch, int64_t tick) {
  Stripe& entry = stripes_[stripe];
  MOESAIC_CHECK(entry.state == State::kAbsent);
  if (arena_.used_slots() == arena_.num_slots() && !EvictOne(prefetch, tick)) return false;
  const SlotRef slot = arena_.Allocate();
  entry = {.data = arena_.Data(slot),
           .slot = slot,
           .pins = 0,
           .state = State::kLoading,
           .unused_prefetch = prefetch};
  const int32_t expert = keys_.ExpertOf(stripe);
  if (experts_[expert].held++ == 0) policy_->OnLoad(expert, now_);
  return true;
}

bool ExpertCache::EvictOne(bool prefetch, int64_t tick) {
  const auto evictable = [&](int32_t key) {
    const Expert& expert = experts_[key];
    if (expert.evictable == 0) return false;
    return !prefetch || expert.expected < now_ || expert.expected > tick;
  };
  const int32_t victim = policy_->ChooseVictim(now_, evictable);
  if (victim < 0) return false;
  const int32_t first = keys_.FirstStripe(victim);
  int32_t stripe = first + keys_.stripes_per_expert - 1;
  while (stripe >= first &&
         (stripes_[stripe].state != State::kResident || stripes_[stripe].pins > 0)) {
    --stripe;
  }
  MOESAIC_CHECK(stripe >= first);
  ++counters_.evicted_stripes;
  Release(stripe);
  return true;
}

void ExpertCache::FinishLoad(int32_t stripe) {
  MOESAIC_CHECK(stripes_[stripe].state == State::kLoading);
  stripes_[stripe].state = State::kResident;
  ++experts_[keys_.ExpertOf(stripe)].evictable;
}

void ExpertCache::AbandonLoad(int32_t stripe) {
  MOESAIC_CHECK(stripes_[stripe].state == State::kLoading);
  stripes_[stripe].unused_prefetch = false;  // no bytes came
  LoseSlot(stripe);
}

void ExpertCache::MarkUsed(int32_t stripe) {
  if (!stripes_[stripe].unused_prefetch) return;
  stripes_[stripe].unused_prefetch = false;
  ++counters_.used_prefetches;
}

int32_t ExpertCache::PinResident(int32_t expert, SlotRef* slots, const void** data, bool* pinned) {
  if (experts_[expert].held == 0) return 0;
  const int32_t first = keys_.FirstStripe(expert);
  int32_t resident = 0;
  for (int32_t s = 0; s < keys_.stripes_per_expert; ++s) {
    if (stripes_[first + s].state != State::kResident) continue;
    slots[s] = Pin(first + s, experts_[expert]);
    data[s] = stripes_[first + s].data;
    pinned[s] = true;
    ++resident;
  }
  return resident;
}

void ExpertCache::UnpinRange(int32_t expert, int32_t first, int32_t count, const SlotRef* slots) {
  const int32_t first_stripe = keys_.FirstStripe(expert) + first;
  for (int32_t s = 0; s < count; ++s) Unpin(first_stripe + s, slots[s], experts_[expert]);
}

void ExpertCache::Release(int32_t stripe) {
  MOESAIC_CHECK(stripes_[stripe].state == State::kResident && stripes_[stripe].pins == 0);
  --experts_[keys_.ExpertOf(stripe)].evictable;
  LoseSlot(stripe);
}

void ExpertCache::LoseSlot(int32_t stripe) {
  // Unmapped before its slot can be another's.
  const Stripe entry = std::exchange(stripes_[stripe], Stripe{});
  if (entry.unused_prefetch) ++counters_.wasted_stripes;
  arena_.Free(entry.slot);
  const int32_t expert = keys_.ExpertOf(stripe);
  if (--experts_[expert].held == 0) policy_->OnEvict(expert);
}

}  // namespace moesaic
