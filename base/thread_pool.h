#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace moesaic {

// Workers for data-parallel loops inside one operator.
//
// Owner: the executor (one pool per device). Thread: ParallelFor is called by one thread at a time,
// which works along as worker 0. Lifetime: workers end in the destructor. A waiting worker spins
// for a short while, since operators follow each other within microseconds in decode, and then
// sleeps.
class ThreadPool {
 public:
  // `num_threads` >= 1 counts the calling thread.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task, worker) once for each task in [0, num_tasks), tasks handed out in ascending
  // order to workers as they become free; returns when all are done. `worker` in [0, num_threads)
  // names a scratch area.
  void ParallelFor(int64_t num_tasks, absl::FunctionRef<void(int64_t task, int worker)> body);

 private:
  using Body = absl::FunctionRef<void(int64_t, int)>;

  void WorkerLoop(int worker);
  void RunTasks(const Body& body, int64_t num_tasks, int worker);

  std::vector<std::thread> workers_;
  // Published by ParallelFor before it advances `epoch_`, read by workers after they see the new
  // value.
  const Body* body_ = nullptr;
  int64_t num_tasks_ = 0;
  std::atomic<int64_t> next_task_{0};
  std::atomic<uint32_t> epoch_{0};
  std::atomic<int> workers_left_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace moesaic
