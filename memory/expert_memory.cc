#include "memory/expert_memory.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

using Clock = std::chrono::steady_clock;

CopyClass ToCopyClass(PrefetchClass prefetch_class) {
  return prefetch_class == PrefetchClass::kNextLayer ? CopyClass::kNextLayer : CopyClass::kLater;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertMemory>> ExpertMemory::Create(
    Device& device,
    StripeSource& source,
    std::unique_ptr<ExpertPolicy> policy,
    const Options& options) {
  const ExpertStore::Shape& shape = source.shape();
  const StripeKeys keys = {.num_layers = shape.num_layers,
                           .num_experts = shape.num_experts,
                           .stripes_per_expert = shape.stripes_per_expert};
  if (!keys.valid() || shape.slot_bytes <= 0) {
    return absl::InvalidArgumentError(StrCat("cannot hold ", shape.num_layers, " layers of ",
                                             shape.num_experts, " experts of ",
                                             shape.stripes_per_expert, " stripes"));
  }
  if (options.budget_bytes / 2 < shape.slot_bytes) {
    return absl::InvalidArgumentError(
        StrCat("an expert memory of ", options.budget_bytes, " bytes is too small: ",
               MinimumBudgetBytes(shape.slot_bytes), " bytes is the smallest that works"));
  }
  const int64_t slots =
      std::min<int64_t>(options.budget_bytes / shape.slot_bytes, std::max(keys.stripes(), 2));
  MOESAIC_ASSIGN_OR_RETURN(
      StripeArena arena,
      StripeArena::Create(device, static_cast<int32_t>(slots), shape.slot_bytes));
  std::unique_ptr<ExpertMemory> memory(new ExpertMemory(std::move(arena), keys, std::move(policy)));
  MOESAIC_ASSIGN_OR_RETURN(
      memory->engine_, CopyEngine::Create(device, source, *memory, memory->mutex_, options.copies));
  return memory;
}

ExpertMemory::ExpertMemory(StripeArena arena,
                           const StripeKeys& keys,
                           std::unique_ptr<ExpertPolicy> policy)
    : keys_(keys),
      cache_(keys, std::move(arena), std::move(policy)),
      active_(keys.num_experts),
      active_of_(keys.num_experts, -1),
      slots_(static_cast<size_t>(keys.num_experts) * keys.stripes_per_expert),
      pointers_(slots_.size()),
      is_pinned_(std::make_unique<bool[]>(slots_.size())),
      queued_prefetches_(keys.num_layers, 0) {
  demand_order_.reserve(keys.num_experts);
  ready_.reserve(keys.num_experts);
  failures_.reserve(keys.num_experts);
  reported_failures_.reserve(keys.num_experts);
}

ExpertMemory::~ExpertMemory() {
  // The copy thread calls us until then. Without an engine, Create failed.
  if (engine_ != nullptr) engine_->Stop();
}

void ExpertMemory::PinFor(int32_t index, int32_t stripe_number) {
  const int32_t stripe = keys_.FirstStripe(active_[index].expert) + stripe_number;
  const int32_t cell = Cell(index, stripe_number);
  slots_[cell] = cache_.Pin(stripe);
  pointers_[cell] = cache_.Data(stripe);
  is_pinned_[cell] = true;
  ++pinned_;
}

void ExpertMemory::Unpin(int32_t index, int32_t stripe_number) {
  const int32_t stripe = keys_.FirstStripe(active_[index].expert) + stripe_number;
  const int32_t cell = Cell(index, stripe_number);
  cache_.Unpin(stripe, slots_[cell]);
  if (stripe_number < active_[index].next) --taken_;
  is_pinned_[cell] = false;
  --pinned_;
}

void ExpertMemory::GiveBackUnlessKept(int32_t stripe) {
  if (!cache_.keeps_consumed()) cache_.Release(stripe);
}

void ExpertMemory::BeginLayer(int32_t layer, int64_t tick, std::span<const ActiveExpert> active) {
  const std::lock_guard lock(mutex_);
  MOESAIC_CHECK(!in_layer_ && layer >= 0 && layer < keys_.num_layers &&
                active.size() <= active_.size());
  in_layer_ = true;
  layer_ = layer;
  num_active_ = static_cast<int32_t>(active.size());
  left_ = num_active_ * keys_.stripes_per_expert;
  failures_.clear();
  reported_failures_.clear();
  error_ = absl::OkStatus();
  demand_order_.clear();
  cache_.Advance(tick);

  // All pins come before the first demand, which would take slots.
  for (int32_t i = 0; i < num_active_; ++i) {
    MOESAIC_CHECK(active_of_[active[i].expert] < 0);
    active_of_[active[i].expert] = i;
    const int32_t key = keys_.Expert({layer, active[i].expert});
    active_[i] = {.expert = key, .rows = active[i].rows};
    cache_.Use(key, active[i].rows);
    const int32_t resident = cache_.PinResident(key, &slots_[Cell(i, 0)], &pointers_[Cell(i, 0)],
                                                &is_pinned_[Cell(i, 0)]);
    pinned_ += resident;
    metrics_.hits += resident;
    if (resident == keys_.stripes_per_expert) {
      ++metrics_.expert_hits;
    } else {
      demand_order_.push_back(i);
    }
  }
  if (!demand_order_.empty()) {
    std::sort(demand_order_.begin(), demand_order_.end(), [this](int32_t a, int32_t b) {
      return active_[a].rows != active_[b].rows ? active_[a].rows > active_[b].rows
                                                : active_[a].expert < active_[b].expert;
    });
    for (const int32_t index : demand_order_) {
      const bool partial = cache_.held_stripes(active_[index].expert) > 0;
      ++(partial ? metrics_.expert_partial_hits : metrics_.expert_misses);
      Demand(index);
    }
  }
  CancelUnchosenPrefetches(layer);
  engine_->Resume();  // what was expected up to now is no longer protected
  engine_->Flush();
  if (idle_waiters_ > 0) changed_.notify_all();
}

// Demands what an active expert lacks, behind all that is demanded already.
void ExpertMemory::Demand(int32_t index) {
  const int32_t first = keys_.FirstStripe(active_[index].expert);
  for (int32_t s = 0; s < keys_.stripes_per_expert; ++s) {
    const int32_t stripe = first + s;
    switch (cache_.state(stripe)) {
      case ExpertCache::State::kResident:
        break;
      case ExpertCache::State::kLoading:
        ++metrics_.late;
        cache_.MarkUsed(stripe);
        engine_->Promote(stripe, CopyClass::kDemand);
        break;
      case ExpertCache::State::kAbsent:
        ++metrics_.misses;
        if (engine_->queue().Contains(stripe)) {
          --queued_prefetches_[layer_];
          engine_->Promote(stripe, CopyClass::kDemand);
        } else {
          engine_->Enqueue(stripe, CopyClass::kDemand);
        }
        break;
    }
  }
}

void ExpertMemory::CancelUnchosenPrefetches(int32_t layer) {
  for (int32_t e = 0; queued_prefetches_[layer] > 0 && e < keys_.num_experts; ++e) {
    const int32_t key = keys_.Expert({layer, e});
    // One for a later step stays.
    if (active_of_[e] >= 0 || cache_.expected(key) > cache_.now()) continue;
    const int32_t first = keys_.FirstStripe(key);
    for (int32_t s = 0; s < keys_.stripes_per_expert; ++s) {
      if (!engine_->queue().Contains(first + s)) continue;
      engine_->Cancel(first + s);
      --queued_prefetches_[layer];
      ++metrics_.cancelled_prefetches;
    }
  }
}

int32_t ExpertMemory::NeededBy(int32_t stripe) const {
  if (!in_layer_) return -1;
  const StripeId id = keys_.Id(stripe);
  if (id.expert.layer != layer_) return -1;
  const int32_t index = active_of_[id.expert.index];
  if (index < 0 || active_[index].failed || id.stripe < active_[index].next) return -1;
  return index;
}

std::byte* ExpertMemory::Place(int32_t stripe, CopyClass copy_class) {
  if (copy_class == CopyClass::kDemand) {
    if (cache_.BeginDemand(stripe)) return cache_.Data(stripe);
  } else {
    const int32_t expert = keys_.ExpertOf(stripe);
    const int64_t tick = cache_.expected(expert);
    int32_t& queued = queued_prefetches_[expert / keys_.num_experts];
    if (tick < cache_.now()) {  // too late to be of use
      engine_->Cancel(stripe);
      --queued;
      ++metrics_.cancelled_prefetches;
      if (idle_waiters_ > 0) changed_.notify_all();
      return nullptr;
    }
    if (cache_.BeginPrefetch(stripe, tick)) {
      --queued;
      return cache_.Data(stripe);
    }
  }
  if (executor_waits_ || idle_waiters_ > 0) changed_.notify_all();
  return nullptr;
}

void ExpertMemory::Finished(int32_t stripe, const absl::Status& status) {
  const int32_t index = NeededBy(stripe);
  if (!status.ok()) {
    cache_.AbandonLoad(stripe);
    if (index >= 0) Fail(index, status);
  } else {
    const bool prefetched = cache_.unused_prefetch(stripe);
    cache_.FinishLoad(stripe);
    if (index >= 0) {
      PinFor(index, stripe - keys_.FirstStripe(active_[index].expert));
    } else if (!prefetched) {
      GiveBackUnlessKept(stripe);  // its layer ended in an error
    }
  }
  if (executor_waits_ || idle_waiters_ > 0) changed_.notify_all();
}

// Gives up what the expert holds and asked for; stripes that are taken stay until they are
// consumed.
void ExpertMemory::Fail(int32_t index, const absl::Status& status) {
  Active& active = active_[index];
  active.failed = true;
  failures_.push_back(index);
  // A copy of its own, for the executor's thread: the message is shared with nobody.
  if (error_.ok()) error_ = absl::Status(status.code(), status.message());
  left_ -= keys_.stripes_per_expert - active.next;
  const int32_t first = keys_.FirstStripe(active.expert);
  for (int32_t s = active.next; s < keys_.stripes_per_expert; ++s) {
    if (is_pinned_[Cell(index, s)]) {
      Unpin(index, s);
      GiveBackUnlessKept(first + s);
    } else if (engine_->queue().Contains(first + s)) {
      engine_->Cancel(first + s);
    }
  }
}

// Takes the pinned stripes that continue each expert.
void ExpertMemory::CollectReady() {
  ready_.clear();
  for (int32_t i = 0; i < num_active_; ++i) {
    Active& active = active_[i];
    const int32_t first = active.next;
    if (active.failed || first == keys_.stripes_per_expert) continue;
    const bool* const is_pinned = &is_pinned_[Cell(i, 0)];
    int32_t end = first;
    while (end < keys_.stripes_per_expert && is_pinned[end]) ++end;
    if (end == first) continue;
    active.next = end;
    ready_.push_back({.index = i,
                      .first_stripe = first,
                      .num_stripes = end - first,
                      .pointers = &pointers_[Cell(i, first)]});
    taken_ += end - first;
    left_ -= end - first;
  }
}

// Nothing is on its way and the next demand finds no room.
bool ExpertMemory::Standstill() const {
  return engine_->in_flight() == 0 && engine_->blocked() &&
         engine_->queue().size(CopyClass::kDemand) > 0;
}

absl::StatusOr<std::span<const ExpertMemory::ReadyStripes>> ExpertMemory::WaitReady() {
  std::unique_lock lock(mutex_);
  MOESAIC_CHECK(in_layer_);
  for (;;) {
    if (!error_.ok()) {
      reported_failures_.assign(failures_.begin(), failures_.end());
      return std::exchange(error_, absl::OkStatus());
    }
    CollectReady();
    if (!ready_.empty() || left_ == 0) return std::span<const ReadyStripes>(ready_);
    if (Standstill()) {
      if (taken_ > 0) return std::span<const ReadyStripes>(ready_);
      Surrender();
    }
    // Else we would wait for ever.
    MOESAIC_CHECK(engine_->in_flight() > 0 || engine_->queue().size(CopyClass::kDemand) > 0);
    const Clock::time_point start = Clock::now();
    executor_waits_ = true;
    changed_.wait(lock);
    executor_waits_ = false;
    metrics_.stall_seconds += std::chrono::duration<double>(Clock::now() - start).count();
  }
}

// Every slot holds a pinned stripe that cannot run yet, because an earlier one of its expert is
// missing. The one that is needed last gives its slot to the one that is needed first, which can
// run as soon as it lands: so the layer always gets on.
void ExpertMemory::Surrender() {
  for (size_t position = demand_order_.size(); position-- > 0;) {
    const int32_t index = demand_order_[position];
    const Active& active = active_[index];
    if (active.failed) continue;
    for (int32_t s = keys_.stripes_per_expert - 1; s > active.next; --s) {
      if (!is_pinned_[Cell(index, s)]) continue;
      const int32_t stripe = keys_.FirstStripe(active.expert) + s;
      Unpin(index, s);
      cache_.Release(stripe);
      ++metrics_.surrenders;
      engine_->Enqueue(stripe, CopyClass::kDemand, NextQueuedDemand(position, s + 1));
      engine_->Flush();
      return;
    }
  }
  MOESAIC_CHECK(false && "two slots are enough for a layer");
}

// The first queued demand from stripe `stripe_number` of demand_order_[position] on, -1 for none.
int32_t ExpertMemory::NextQueuedDemand(size_t position, int32_t stripe_number) const {
  for (; position < demand_order_.size(); ++position, stripe_number = 0) {
    const Active& active = active_[demand_order_[position]];
    for (int32_t s = stripe_number; !active.failed && s < keys_.stripes_per_expert; ++s) {
      const int32_t stripe = keys_.FirstStripe(active.expert) + s;
      if (engine_->queue().Contains(stripe)) return stripe;
    }
  }
  return -1;
}

int32_t ExpertMemory::stripes_left() const {
  const std::lock_guard lock(mutex_);
  return left_;
}

void ExpertMemory::Consume(std::span<const ReadyStripes> stripes) {
  const std::lock_guard lock(mutex_);
  MOESAIC_CHECK(in_layer_);
  for (const ReadyStripes& run : stripes) {
    MOESAIC_CHECK(run.index < num_active_);
    const int32_t expert = active_[run.index].expert;
    const int32_t end = run.first_stripe + run.num_stripes;
    bool* const is_pinned = &is_pinned_[Cell(run.index, run.first_stripe)];
    MOESAIC_CHECK(end <= active_[run.index].next &&
                  std::all_of(is_pinned, is_pinned + run.num_stripes, std::identity()));
    std::fill_n(is_pinned, run.num_stripes, false);
    cache_.UnpinRange(expert, run.first_stripe, run.num_stripes,
                      &slots_[Cell(run.index, run.first_stripe)]);
    pinned_ -= run.num_stripes;
    taken_ -= run.num_stripes;
    for (int32_t s = run.first_stripe; s < end; ++s) {
      GiveBackUnlessKept(keys_.FirstStripe(expert) + s);
    }
  }
  engine_->Resume();
  engine_->Flush();
}

void ExpertMemory::EndLayer() {
  const std::lock_guard lock(mutex_);
  MOESAIC_CHECK(in_layer_);
  for (int32_t i = 0; i < num_active_; ++i) {
    const int32_t first = keys_.FirstStripe(active_[i].expert);
    for (int32_t s = 0; pinned_ > 0 && s < keys_.stripes_per_expert; ++s) {
      if (!is_pinned_[Cell(i, s)]) continue;
      Unpin(i, s);
      GiveBackUnlessKept(first + s);
    }
    active_of_[active_[i].expert - keys_.Expert({layer_, 0})] = -1;
  }
  engine_->CancelClass(CopyClass::kDemand);
  in_layer_ = false;
  num_active_ = 0;
  left_ = 0;
  engine_->Resume();
  engine_->Flush();
  if (idle_waiters_ > 0) changed_.notify_all();
}

void ExpertMemory::Prefetch(const PrefetchPlan& plan) {
  const std::lock_guard lock(mutex_);
  for (const PrefetchPlan::Entry& entry : plan.entries) {
    const int32_t count = entry.num_stripes == PrefetchPlan::kAllStripes
                              ? keys_.stripes_per_expert - entry.first_stripe
                              : entry.num_stripes;
    MOESAIC_CHECK(entry.expert.layer >= 0 && entry.expert.layer < keys_.num_layers &&
                  entry.expert.index >= 0 && entry.expert.index < keys_.num_experts &&
                  entry.first_stripe >= 0 && count >= 0 &&
                  count <= keys_.stripes_per_expert - entry.first_stripe);
    // Its gate has spoken: what it needs is demanded already.
    const bool running = in_layer_ && entry.expert.layer == layer_;
    if (entry.tick < cache_.now() || (running && entry.tick == cache_.now())) continue;
    const int32_t expert = keys_.Expert(entry.expert);
    cache_.Expect(expert, entry.tick);
    for (int32_t s = entry.first_stripe; s < entry.first_stripe + count; ++s) {
      const int32_t stripe = keys_.FirstStripe(expert) + s;
      if (cache_.state(stripe) != ExpertCache::State::kAbsent) continue;
      if (engine_->queue().Contains(stripe)) {
        engine_->Promote(stripe, ToCopyClass(entry.prefetch_class));
      } else {
        engine_->Enqueue(stripe, ToCopyClass(entry.prefetch_class));
        ++queued_prefetches_[entry.expert.layer];
      }
    }
  }
  engine_->Flush();
}

void ExpertMemory::CancelPrefetches() {
  const std::lock_guard lock(mutex_);
  for (const CopyClass copy_class : {CopyClass::kNextLayer, CopyClass::kLater}) {
    metrics_.cancelled_prefetches += engine_->queue().size(copy_class);
    engine_->CancelClass(copy_class);
  }
  engine_->Flush();
  std::fill(queued_prefetches_.begin(), queued_prefetches_.end(), 0);
  if (idle_waiters_ > 0) changed_.notify_all();
}

void ExpertMemory::WaitIdle() {
  std::unique_lock lock(mutex_);
  ++idle_waiters_;
  while (engine_->in_flight() > 0 || !(engine_->queue().empty() || engine_->blocked())) {
    changed_.wait(lock);
  }
  --idle_waiters_;
}

ExpertMemoryMetrics ExpertMemory::metrics() const {
  const std::lock_guard lock(mutex_);
  ExpertMemoryMetrics metrics = metrics_;
  const int64_t slot_bytes = cache_.arena().slot_bytes();
  metrics.copies = engine_->counters();
  const auto bytes = [&](CopyClass copy_class) {
    return metrics.copies.classes[static_cast<int>(copy_class)].bytes;
  };
  metrics.demanded_bytes = bytes(CopyClass::kDemand);
  metrics.prefetched_bytes = bytes(CopyClass::kNextLayer) + bytes(CopyClass::kLater);
  metrics.wasted_bytes = cache_.counters().wasted_stripes * slot_bytes;
  metrics.used_prefetched_bytes = cache_.counters().used_prefetches * slot_bytes;
  metrics.evictions = cache_.counters().evicted_stripes + metrics.surrenders;
  metrics.failed_copies = metrics.copies.failed_stripes;
  metrics.slot_bytes = slot_bytes;
  metrics.budget_bytes = cache_.arena().num_slots() * slot_bytes;
  metrics.used_bytes = cache_.arena().used_slots() * slot_bytes;
  metrics.high_water_bytes = cache_.arena().high_water_slots() * slot_bytes;
  return metrics;
}

}  // namespace moesaic
