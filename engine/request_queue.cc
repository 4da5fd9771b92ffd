#include "engine/request_queue.h"

#include <utility>

#include "base/str_cat.h"

namespace moesaic {
namespace {

// Waits on `condition` until `ready` or `deadline`.
template <typename Ready>
void WaitUntil(std::condition_variable& condition,
               std::unique_lock<std::mutex>& lock,
               absl::Time deadline,
               Ready ready) {
  if (deadline == absl::InfiniteFuture()) {
    condition.wait(lock, ready);
  } else {
    condition.wait_until(lock, absl::ToChronoTime(deadline), ready);
  }
}

}  // namespace

RequestQueue::RequestQueue(int32_t capacity) : capacity_(capacity) {}

absl::Status RequestQueue::Push(Submission submission) {
  const RequestId id = submission.request.id;
  {
    const std::lock_guard lock(mutex_);
    if (draining_ || stopping_) return absl::UnavailableError("the server is shutting down");
    if (places_taken_ >= capacity_) {
      return absl::ResourceExhaustedError(
          StrCat("all ", capacity_, " places for running and waiting requests are taken"));
    }
    if (!accepted_.try_emplace(id, false).second) {
      return absl::AlreadyExistsError(StrCat("a request with id ", id, " is in progress"));
    }
    ++places_taken_;
    submissions_.push_back(std::move(submission));
  }
  changed_.notify_one();
  return absl::OkStatus();
}

void RequestQueue::Cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = accepted_.find(id);
    if (it == accepted_.end() || it->second) return;
    it->second = true;
    cancellations_.push_back(id);
  }
  changed_.notify_one();
}

void RequestQueue::SetHeld(bool held) {
  {
    const std::lock_guard lock(mutex_);
    held_ = held;
  }
  changed_.notify_one();
}

void RequestQueue::Drain(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  const auto empty = [this] { return accepted_.empty(); };
  WaitUntil(emptied_, lock, deadline, empty);
  for (auto& [id, cancelled] : accepted_) {
    if (cancelled) continue;
    cancelled = true;
    cancellations_.push_back(id);
  }
  changed_.notify_one();
  emptied_.wait(lock, empty);
}

void RequestQueue::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
}

int32_t RequestQueue::num_accepted() const {
  const std::lock_guard lock(mutex_);
  return places_taken_;
}

bool RequestQueue::HasNews() const {
  return !submissions_.empty() || !cancellations_.empty() || held_ != held_seen_ || stopping_;
}

void RequestQueue::Take(bool idle, absl::Time wake_at, QueuedWork& work) {
  work.submissions.clear();
  work.cancellations.clear();
  std::unique_lock lock(mutex_);
  if (idle || held_) WaitUntil(changed_, lock, wake_at, [this] { return HasNews(); });
  std::swap(work.submissions, submissions_);
  std::swap(work.cancellations, cancellations_);
  held_seen_ = held_;
  work.held = held_;
  work.stopping = stopping_;
}

void RequestQueue::FreePlace() {
  const std::lock_guard lock(mutex_);
  --places_taken_;
}

void RequestQueue::Forget(RequestId id) {
  const std::lock_guard lock(mutex_);
  accepted_.erase(id);
  if (accepted_.empty()) emptied_.notify_all();
}

}  // namespace moesaic
