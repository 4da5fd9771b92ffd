#include "server/stream_waker.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/response_stream.h"

namespace moesaic {

StreamWaker::StreamWaker(absl::Duration sweep_interval)
    : sweep_interval_(sweep_interval), thread_([this] { Run(); }) {}

StreamWaker::~StreamWaker() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void StreamWaker::Wake(std::shared_ptr<ResponseStream> stream) {
  absl::MutexLock lock(&mutex_);
  awake_.push_back(std::move(stream));
}

void StreamWaker::Watch(const std::shared_ptr<ResponseStream>& stream) {
  absl::MutexLock lock(&mutex_);
  watched_.push_back(stream);
}

void StreamWaker::Run() {
  std::vector<std::shared_ptr<ResponseStream>> batch;
  absl::Time next_sweep = absl::Now() + sweep_interval_;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stop_ || !awake_.empty();
      };
      mutex_.AwaitWithDeadline(absl::Condition(&has_work), next_sweep);
      if (stop_ && awake_.empty()) return;
      std::swap(batch, awake_);
    }
    for (const auto& stream : batch) stream->NotifyListener();
    batch.clear();
    if (absl::Now() >= next_sweep) {
      Sweep();
      next_sweep = absl::Now() + sweep_interval_;
    }
  }
}

void StreamWaker::Sweep() {
  std::vector<std::shared_ptr<ResponseStream>> live;
  {
    absl::MutexLock lock(&mutex_);
    std::erase_if(watched_, [](const auto& stream) { return stream.expired(); });
    live.reserve(watched_.size());
    for (const auto& stream : watched_) {
      if (auto locked = stream.lock()) live.push_back(std::move(locked));
    }
  }
  const absl::Time now = absl::Now();
  for (const auto& stream : live) stream->CheckStalled(now);
}

}  // namespace moesaic
