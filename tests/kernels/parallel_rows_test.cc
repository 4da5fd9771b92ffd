#include "kernels/cpu/parallel_rows.h"

#include <atomic>
#include <vector>

#include <gtest/gtest.h>

#include "base/thread_pool.h"

namespace moesaic::kernels {
namespace {

struct Visits {
  explicit Visits(int64_t rows) : counts(rows) {}
  std::vector<std::atomic<int>> counts;
  std::atomic<int> calls = 0;
};

void Visit(const void* args, int64_t begin, int64_t end) {
  auto& visits = *const_cast<Visits*>(static_cast<const Visits*>(args));
  ++visits.calls;
  for (int64_t row = begin; row < end; ++row) ++visits.counts[row];
}

TEST(ParallelRowsTest, VisitsEveryRowOnce) {
  ThreadPool pool(3);
  for (int64_t rows : {0, 1, 2, 7, 100, 5000}) {
    for (int64_t row_elements : {0, 1, 100, 10000, 1000000}) {
      Visits visits(rows);
      Stream stream;
      stream.pool = &pool;
      ForEachRowRange(stream, rows, row_elements, &Visit, &visits);
      for (const std::atomic<int>& count : visits.counts) ASSERT_EQ(count.load(), 1);
    }
  }
}

TEST(ParallelRowsTest, LittleWorkStaysInOneRange) {
  ThreadPool pool(3);
  Stream stream;
  stream.pool = &pool;
  Visits few(16);
  ForEachRowRange(stream, 16, 64, &Visit, &few);
  EXPECT_EQ(few.calls.load(), 1);
  Visits many(16);
  ForEachRowRange(stream, 16, 100000, &Visit, &many);
  EXPECT_GT(many.calls.load(), 1);
}

TEST(ParallelRowsTest, RunsWithoutAPool) {
  Visits visits(1000);
  Stream stream;
  ForEachRowRange(stream, 1000, 1000, &Visit, &visits);
  for (const std::atomic<int>& count : visits.counts) ASSERT_EQ(count.load(), 1);
}

}  // namespace
}  // namespace moesaic::kernels
