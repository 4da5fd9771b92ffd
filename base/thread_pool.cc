#include "base/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace moesaic {
namespace {

// About 50 us of polling before a worker sleeps: longer than the gap between two operators of a
// decode step, shorter than what an idle server should burn.
constexpr int kSpins = 2000;

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  workers_.reserve(num_threads - 1);
  for (int worker = 1; worker < num_threads; ++worker) {
    workers_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t num_tasks, Body body) {
  if (workers_.empty() || num_tasks <= 1) {
    for (int64_t task = 0; task < num_tasks; ++task) body(task, 0);
    return;
  }
  body_ = &body;
  num_tasks_ = num_tasks;
  next_task_.store(0, std::memory_order_relaxed);
  workers_left_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  RunTasks(body, num_tasks, 0);
  for (int spin = 0; spin < kSpins; ++spin) {
    if (workers_left_.load(std::memory_order_acquire) == 0) return;
    Pause();
  }
  for (int left = workers_left_.load(std::memory_order_acquire); left != 0;
       left = workers_left_.load(std::memory_order_acquire)) {
    workers_left_.wait(left, std::memory_order_acquire);
  }
}

void ThreadPool::RunTasks(const Body& body, int64_t num_tasks, int worker) {
  for (int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed); task < num_tasks;
       task = next_task_.fetch_add(1, std::memory_order_relaxed)) {
    body(task, worker);
  }
}

void ThreadPool::WorkerLoop(int worker) {
  uint32_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && epoch_.load(std::memory_order_acquire) == seen; ++spin) {
      Pause();
    }
    epoch_.wait(seen, std::memory_order_acquire);
    // The caller waits for every worker before the next epoch, so none can be skipped.
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    RunTasks(*body_, num_tasks_, worker);
    if (workers_left_.fetch_sub(1, std::memory_order_acq_rel) == 1) workers_left_.notify_one();
  }
}

}  // namespace moesaic
