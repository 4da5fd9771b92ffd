#include "server/stream_waker.h"

#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "server/response_stream.h"

namespace moesaic {

StreamWaker::StreamWaker(absl::Duration sweep_interval)
    : sweep_interval_(sweep_interval), thread_([this] { Run(); }) {}

StreamWaker::~StreamWaker() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void StreamWaker::Wake(std::shared_ptr<ResponseStream> stream) {
  const std::lock_guard lock(mutex_);
  awake_.push_back(std::move(stream));
  if (awake_.size() == 1) changed_.notify_one();
}

void StreamWaker::Watch(const std::shared_ptr<ResponseStream>& stream) {
  const std::lock_guard lock(mutex_);
  watched_.push_back(stream);
}

void StreamWaker::Run() {
  using Clock = std::chrono::steady_clock;
  const auto interval = absl::ToChronoNanoseconds(sweep_interval_);
  std::vector<std::shared_ptr<ResponseStream>> batch;
  Clock::time_point next_sweep = Clock::now() + interval;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, next_sweep, [this] { return stop_ || !awake_.empty(); });
      if (stop_ && awake_.empty()) return;
      std::swap(batch, awake_);
    }
    for (const auto& stream : batch) stream->NotifyListener();
    batch.clear();
    if (Clock::now() >= next_sweep) {
      Sweep();
      next_sweep = Clock::now() + interval;
    }
  }
}

void StreamWaker::Sweep() {
  std::vector<std::shared_ptr<ResponseStream>> live;
  {
    const std::lock_guard lock(mutex_);
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
