#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"

namespace moesaic {

// Expected next uses of resident experts, from how often each was used lately.
//
// Uses are counted twice, with weights that halve every step and every 32 steps: a token often
// takes experts of the token before it, and a workload has its favourites. The shares of the
// decayed steps, mixed, estimate the probability p that its layer chooses an expert in a step. Its
// next use is then expected `layers until its layer runs + num_layers * (1/p - 1)` ticks from now:
// frequency decides, and among equals the layer that has just run goes first, because it comes
// round last. (Recency alone evicts in the order in which layers come round, which on a cyclic
// sweep is the worst one.) docs/expert-memory.md has the measurements behind the constants.
//
// Counts decay when their layer runs, so the order inside a layer changes once a step: it is sorted
// then, and the furthest expected use is found among one candidate per layer.
//
// Owner: a policy. Thread: its caller's. Memory is allocated in the constructor.
class UseFrequency {
 public:
  static constexpr int32_t kFastHalfLifeSteps = 1;
  static constexpr int32_t kSlowHalfLifeSteps = 32;
  static constexpr double kFastShare = 0.85;

  UseFrequency(int32_t num_layers, int32_t num_experts);

  void OnUse(int32_t key, int64_t tick);
  void Add(int32_t key);  // becomes resident
  void Remove(int32_t key);

  struct Candidate {
    int32_t key = -1;  // none
    double ticks = 0;  // until its expected next use
  };
  // The resident expert with the furthest expected next use of those for which `evictable` is true.
  Candidate Furthest(int64_t tick, absl::FunctionRef<bool(int32_t)> evictable);

 private:
  struct Counts {
    double fast = 0;
    double slow = 0;

    double Mixed() const { return kFastShare * fast + (1 - kFastShare) * slow; }
    void Decay(double fast_factor, double slow_factor) {
      fast *= fast_factor;
      slow *= slow_factor;
    }
    void Increment() {
      ++fast;
      ++slow;
    }
  };
  struct Layer {
    int64_t step = -1;  // that it ran last
    Counts steps;       // decayed number of them
    int32_t size = 0;   // of its part of `order_`
    bool sorted = true;
  };

  void AdvanceTo(int32_t layer, int64_t step);
  void Sort(int32_t layer);
  // A resident that was never used was prefetched: as if used once, now.
  double Mixed(int32_t key) const { return counts_[key].slow > 0 ? counts_[key].Mixed() : 1; }
  int32_t* Order(int32_t layer) {
    return order_.data() + static_cast<size_t>(layer) * num_experts_;
  }

  const int32_t num_layers_;
  const int32_t num_experts_;
  double slow_factors_[kSlowHalfLifeSteps];  // 2^(-i / kSlowHalfLifeSteps)
  std::vector<Layer> layers_;
  std::vector<Counts> counts_;  // [key]
  std::vector<uint8_t> resident_;
  // [layer][num_experts]: resident keys, by ascending (count, key) where the layer is sorted.
  std::vector<int32_t> order_;
};

}  // namespace moesaic
