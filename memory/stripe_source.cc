#include "memory/stripe_source.h"

#include <cstring>
#include <iterator>

namespace moesaic {

absl::Status RamStripeSource::StartRead(StripeId id, std::byte* slot, uint64_t token) {
  std::memcpy(slot, store_.Stripe(id), store_.shape().slot_bytes);
  finished_.push_back({.token = token, .status = absl::OkStatus()});
  return absl::OkStatus();
}

void RamStripeSource::WaitCompletions(absl::Time deadline, std::vector<Completion>& out) {
  std::unique_lock lock(mutex_);
  if (finished_.empty()) {
    if (deadline == absl::InfiniteFuture()) {
      wake_.wait(lock, [this] { return woken_; });
    } else {
      wake_.wait_until(lock, absl::ToChronoTime(deadline), [this] { return woken_; });
    }
  }
  woken_ = false;
  out.insert(out.end(), std::make_move_iterator(finished_.begin()),
             std::make_move_iterator(finished_.end()));
  finished_.clear();
}

void RamStripeSource::Wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  wake_.notify_one();
}

}  // namespace moesaic
