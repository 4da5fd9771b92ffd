#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "memory/expert_memory.h"
#include "tests/memory/test_stripe_source.h"

namespace moesaic {

// Runs layers as the model does, the kernel replaced by a look at every byte: each stripe of each
// expert comes once, ascending, and is what it should be.
class LayerRunner {
 public:
  struct Result {
    absl::Status status;            // the first error
    std::vector<int32_t> failed;    // indices of experts
    std::vector<int32_t> complete;  // indices of experts that ran wholly
  };

  LayerRunner(ExpertMemory& memory, const TestStripeSource& source)
      : memory_(memory), source_(source) {}

  Result Run(int32_t layer, int64_t tick, std::span<const ExpertMemory::ActiveExpert> active) {
    memory_.BeginLayer(layer, tick, active);
    return Finish(layer, active);
  }

  // What follows BeginLayer(). Errors do not end the layer.
  Result Finish(int32_t layer,
                std::span<const ExpertMemory::ActiveExpert> active,
                bool end = true) {
    Result result;
    std::vector<int32_t> next(active.size(), 0);
    for (;;) {
      const auto ready = memory_.WaitReady();
      if (!ready.ok()) {
        if (result.status.ok()) result.status = ready.status();
        continue;
      }
      if (ready->empty()) break;
      for (const ExpertMemory::ReadyStripes& run : *ready) {
        EXPECT_EQ(run.first_stripe, next[run.index]);
        for (int32_t i = 0; i < run.num_stripes; ++i) {
          const StripeId id = {{layer, active[run.index].expert}, run.first_stripe + i};
          EXPECT_TRUE(source_.Matches(run.pointers[i], id));
        }
        next[run.index] += run.num_stripes;
      }
      memory_.Consume(*ready);
    }
    EXPECT_EQ(memory_.stripes_left(), 0);
    result.failed.assign(memory_.failed().begin(), memory_.failed().end());
    for (size_t i = 0; i < active.size(); ++i) {
      if (next[i] == memory_.keys().stripes_per_expert) {
        result.complete.push_back(static_cast<int32_t>(i));
      }
    }
    EXPECT_EQ(result.complete.size() + result.failed.size(), active.size());
    if (end) memory_.EndLayer();
    return result;
  }

 private:
  ExpertMemory& memory_;
  const TestStripeSource& source_;
};

}  // namespace moesaic
