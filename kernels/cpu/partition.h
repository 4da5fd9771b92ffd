#pragma once

// Splits a loop into tasks that shrink towards its end, so that workers of unequal speed finish
// together while most of the work is done in long sequential runs ("factoring": each round hands
// half of what is left to the workers in equal shares).

#include <algorithm>
#include <cstdint>

#include "base/checked_math.h"

namespace moesaic::kernels {

struct TaskRange {
  int64_t begin = 0;
  int64_t end = 0;
};

class Factoring {
 public:
  Factoring(int64_t total, int workers) : total_(total), workers_(workers) {}

  int64_t num_tasks() const {
    int64_t tasks = 0;
    for (int64_t left = total_; left > 0;) {
      const int64_t share = Share(left);
      tasks += std::min<int64_t>(workers_, CeilDiv(left, share));
      left -= workers_ * share;
    }
    return tasks;
  }
  // Of a task in [0, num_tasks()); the ranges are ascending and cover [0, total).
  TaskRange range(int64_t task) const {
    int64_t begin = 0;
    int64_t share = Share(total_);
    for (; task >= workers_; task -= workers_) {
      begin += workers_ * share;
      share = Share(total_ - begin);
    }
    begin += task * share;
    return {begin, std::min(total_, begin + share)};
  }

 private:
  int64_t Share(int64_t left) const { return std::max<int64_t>(1, left / (2 * workers_)); }

  int64_t total_;
  int64_t workers_;
};

}  // namespace moesaic::kernels
