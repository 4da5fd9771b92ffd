#include "memory/copy_engine.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

// How long the thread sleeps between looks at a copy stream: about what 1.5 MiB take on PCIe 5.
constexpr absl::Duration kPollInterval = absl::Microseconds(30);

int32_t StripesWithin(int64_t bytes, int64_t slot_bytes) {
  return static_cast<int32_t>(std::clamp<int64_t>(bytes / slot_bytes, 1, 1024));
}

StripeKeys KeysOf(const ExpertStore::Shape& shape) {
  return {.num_layers = shape.num_layers,
          .num_experts = shape.num_experts,
          .stripes_per_expert = shape.stripes_per_expert};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CopyEngine>> CopyEngine::Create(Device& device,
                                                               StripeSource& source,
                                                               CopyClient& client,
                                                               std::mutex& mutex,
                                                               const Options& options) {
  const ExpertStore::Shape& shape = source.shape();
  if (!KeysOf(shape).valid() || shape.slot_bytes <= 0) {
    return absl::InvalidArgumentError(StrCat("cannot copy the experts of ", shape.num_layers,
                                             " layers with ", shape.num_experts, " experts of ",
                                             shape.stripes_per_expert, " stripes"));
  }
  std::unique_ptr<CopyEngine> engine(new CopyEngine(device, source, client, mutex, options));
  MOESAIC_ASSIGN_OR_RETURN(engine->stream_, device.CreateCopyStream());
  if (!engine->direct_reads_) {
    const int32_t buffers =
        std::min(source.max_reads_in_flight(), static_cast<int32_t>(engine->copies_.size()));
    MOESAIC_ASSIGN_OR_RETURN(
        engine->staging_,
        device.AllocateHost(static_cast<size_t>(buffers * shape.slot_bytes), "disk reads"));
    for (int32_t i = buffers - 1; i >= 0; --i) engine->free_staging_.push_back(i);
  }
  engine->thread_ = std::thread([raw = engine.get()] { raw->Run(); });
  return engine;
}

CopyEngine::CopyEngine(Device& device,
                       StripeSource& source,
                       CopyClient& client,
                       std::mutex& mutex,
                       const Options& options)
    : source_(source),
      client_(client),
      mutex_(mutex),
      keys_(KeysOf(source.shape())),
      slot_bytes_(source.shape().slot_bytes),
      max_prefetches_(
          StripesWithin(std::min(options.max_prefetch_bytes_in_flight, options.max_bytes_in_flight),
                        slot_bytes_)),
      direct_reads_(device.host_accessible()),
      queue_(keys_.stripes()),
      copies_(StripesWithin(options.max_bytes_in_flight, slot_bytes_)) {
  completions_.reserve(copies_.size());
}

void CopyEngine::Stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    unflushed_ = true;
    Flush();
  }
  thread_.join();
}

void CopyEngine::Enqueue(int32_t stripe, CopyClass copy_class, int32_t before) {
  queue_.Insert(stripe, copy_class, before);
  // A copy that is first now may find room where the former first one did not.
  blocked_ = false;
  unflushed_ = true;
}

void CopyEngine::Promote(int32_t stripe, CopyClass copy_class) {
  if (queue_.Contains(stripe)) {
    if (queue_.ClassOf(stripe) <= copy_class) return;
    queue_.Remove(stripe);
    Enqueue(stripe, copy_class);
    return;
  }
  for (Copy& copy : copies_) {
    if (copy.stripe != stripe || copy.copy_class <= copy_class) continue;
    if (copy_class == CopyClass::kDemand) {
      --prefetches_in_flight_;
      unflushed_ = true;
    }
    copy.copy_class = copy_class;
  }
}

void CopyEngine::Cancel(int32_t stripe) {
  queue_.Remove(stripe);
  ++counters_.cancelled_stripes;
  Resume();
}

void CopyEngine::CancelClass(CopyClass copy_class) {
  while (queue_.Front(copy_class) >= 0) Cancel(queue_.Front(copy_class));
}

void CopyEngine::Resume() {
  if (queue_.empty()) blocked_ = false;
  if (!blocked_) return;
  blocked_ = false;
  unflushed_ = true;
}

void CopyEngine::Flush() {
  if (!std::exchange(unflushed_, false) || !std::exchange(waiting_, false)) return;
  source_.Wake();
}

CopyEngine::Counters CopyEngine::counters() const {
  Counters counters = counters_;
  for (int i = 0; i < kNumCopyClasses; ++i) {
    counters.classes[i].queued = queue_.size(static_cast<CopyClass>(i));
  }
  counters.bytes_in_flight = in_flight_ * slot_bytes_;
  if (in_flight_ > 0) {
    counters.busy_seconds += std::chrono::duration<double>(Clock::now() - busy_since_).count();
  }
  return counters;
}

void CopyEngine::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_ || in_flight_ > 0) {
    // Before anything starts: a copy that ends may make room.
    PollCopies();
    const bool started = StartNext(lock);
    if (started && reads_in_flight_ == 0) continue;
    if (stopping_ && in_flight_ == 0) break;
    absl::Time deadline = absl::UnixEpoch();  // a look at what has finished, no more
    if (!started) {
      // Whoever queues something from now on finds the flag and wakes the source.
      waiting_ = true;
      deadline = copying_ > 0 ? absl::Now() + kPollInterval : absl::InfiniteFuture();
    }
    lock.unlock();
    completions_.clear();
    source_.WaitCompletions(deadline, completions_);
    lock.lock();
    waiting_ = false;
    for (const StripeSource::Completion& completion : completions_) {
      Copy& copy = copies_[completion.token];
      MOESAIC_CHECK(copy.reading);
      copy.reading = false;
      --reads_in_flight_;
      absl::Status status = completion.status;
      if (status.ok() && copy.staging >= 0) {
        status = CopyToSlot(copy, staging_->data() + copy.staging * slot_bytes_);
      }
      if (!copy.copying) Finish(copy, status);
    }
  }
}

// The most urgent stripe that is queued, -1 without one. Prefetches wait while a demand is queued:
// it needs the next slot and the next place in flight.
int32_t CopyEngine::NextStripe() const {
  for (int i = 0; i < kNumCopyClasses; ++i) {
    const int32_t stripe = queue_.Front(static_cast<CopyClass>(i));
    if (stripe >= 0) return stripe;
  }
  return -1;
}

bool CopyEngine::MayStart(int32_t stripe, CopyClass copy_class) const {
  if (in_flight_ == static_cast<int32_t>(copies_.size())) return false;
  if (copy_class != CopyClass::kDemand && prefetches_in_flight_ >= max_prefetches_) return false;
  if (source_.HostStripe(keys_.Id(stripe)) != nullptr) return true;
  return reads_in_flight_ < source_.max_reads_in_flight() &&
         (direct_reads_ || !free_staging_.empty());
}

bool CopyEngine::StartNext(std::unique_lock<std::mutex>& lock) {
  const int32_t stripe = NextStripe();
  if (stopping_ || blocked_ || stripe < 0) return false;
  const CopyClass copy_class = queue_.ClassOf(stripe);
  if (!MayStart(stripe, copy_class)) return false;
  std::byte* const slot = client_.Place(stripe, copy_class);
  // The client may have taken the stripe off the queue instead.
  if (!queue_.Contains(stripe)) return true;
  if (slot == nullptr) {
    blocked_ = true;
    return false;
  }
  queue_.Remove(stripe);
  const auto entry = std::find_if(copies_.begin(), copies_.end(),
                                  [](const Copy& copy) { return copy.stripe < 0; });
  Copy& copy = *entry;
  copy = {.stripe = stripe, .copy_class = copy_class, .slot = slot};
  if (in_flight_++ == 0) busy_since_ = Clock::now();
  if (copy_class != CopyClass::kDemand) ++prefetches_in_flight_;
  counters_.max_bytes_in_flight = std::max(counters_.max_bytes_in_flight, in_flight_ * slot_bytes_);

  lock.unlock();
  const absl::Status status = Start(copy, entry - copies_.begin());
  lock.lock();
  if (!copy.reading && !copy.copying) Finish(copy, status);
  return true;
}

absl::Status CopyEngine::Start(Copy& copy, uint64_t token) {
  const StripeId id = keys_.Id(copy.stripe);
  const std::byte* const host = source_.HostStripe(id);
  if (host != nullptr) return CopyToSlot(copy, host);
  std::byte* target = copy.slot;
  if (!direct_reads_) {
    copy.staging = free_staging_.back();
    free_staging_.pop_back();
    target = staging_->data() + copy.staging * slot_bytes_;
  }
  MOESAIC_RETURN_IF_ERROR(source_.StartRead(id, target, token));
  copy.reading = true;
  ++reads_in_flight_;
  return absl::OkStatus();
}

absl::Status CopyEngine::CopyToSlot(Copy& copy, const std::byte* from) {
  MOESAIC_ASSIGN_OR_RETURN(copy.event, stream_->Copy(copy.slot, from, slot_bytes_));
  copy.copying = true;
  ++copying_;
  return absl::OkStatus();
}

void CopyEngine::PollCopies() {
  for (size_t i = 0; copying_ > 0 && i < copies_.size(); ++i) {
    Copy& copy = copies_[i];
    if (!copy.copying) continue;
    const absl::StatusOr<bool> done = stream_->Poll(copy.event);
    if (done.ok() && !*done) continue;
    copy.copying = false;
    --copying_;
    Finish(copy, done.status());
  }
}

void CopyEngine::Finish(Copy& copy, const absl::Status& status) {
  if (copy.staging >= 0) free_staging_.push_back(copy.staging);
  if (status.ok()) {
    Counters::PerClass& counters = counters_.classes[static_cast<int>(copy.copy_class)];
    ++counters.stripes;
    counters.bytes += slot_bytes_;
  } else {
    ++counters_.failed_stripes;
  }
  if (copy.copy_class != CopyClass::kDemand) --prefetches_in_flight_;
  if (--in_flight_ == 0) {
    counters_.busy_seconds += std::chrono::duration<double>(Clock::now() - busy_since_).count();
  }
  const int32_t stripe = copy.stripe;
  copy = {};
  blocked_ = false;
  client_.Finished(stripe, status);
}

}  // namespace moesaic
