#include "kernels/cpu/partition.h"

#include <gtest/gtest.h>

namespace moesaic::kernels {
namespace {

TEST(FactoringTest, RangesAscendAndCoverTheLoop) {
  for (int64_t total : {0, 1, 2, 3, 31, 32, 1000, 8000}) {
    for (int workers : {1, 2, 3, 128}) {
      const Factoring tasks(total, workers);
      int64_t end = 0;
      for (int64_t task = 0; task < tasks.num_tasks(); ++task) {
        const TaskRange range = tasks.range(task);
        EXPECT_EQ(range.begin, end);
        EXPECT_GT(range.end, range.begin);
        end = range.end;
      }
      EXPECT_EQ(end, total) << workers << " workers";
    }
  }
}

TEST(FactoringTest, TasksShrinkToOne) {
  const Factoring tasks(1000, 2);
  int64_t previous = 1000;
  for (int64_t task = 0; task < tasks.num_tasks(); ++task) {
    const TaskRange range = tasks.range(task);
    EXPECT_LE(range.end - range.begin, previous);
    previous = range.end - range.begin;
  }
  EXPECT_EQ(tasks.range(0).end, 250);
  EXPECT_EQ(previous, 1);
  EXPECT_LT(tasks.num_tasks(), 30);
}

}  // namespace
}  // namespace moesaic::kernels
