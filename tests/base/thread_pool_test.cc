#include "base/thread_pool.h"

#include <atomic>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryTaskOnceAndNamesAValidWorker) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.num_threads(), GetParam());
  for (int64_t num_tasks : {0, 1, 2, 3, 17, 1000}) {
    std::vector<std::atomic<int>> runs(num_tasks);
    std::atomic<bool> valid = true;
    pool.ParallelFor(num_tasks, [&](int64_t task, int worker) {
      runs[task].fetch_add(1);
      if (worker < 0 || worker >= pool.num_threads()) valid = false;
    });
    EXPECT_TRUE(valid);
    for (const std::atomic<int>& count : runs) EXPECT_EQ(count.load(), 1);
  }
}

TEST_P(ThreadPoolTest, WritesOfOneLoopAreSeenByTheNext) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 2000; ++round) {
    pool.ParallelFor(64, [&](int64_t task, int) { values[63 - task] += 1; });
    pool.ParallelFor(64, [&](int64_t task, int) { values[task] += 1; });
  }
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 64 * 4000);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8));

}  // namespace
}  // namespace moesaic
