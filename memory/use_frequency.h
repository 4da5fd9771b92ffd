#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"

namespace moesaic {

// Expected next uses of resident experts, from how often each was used lately.
//
// A use counts 2^-(age / half-life), so that an expert's share of the decayed steps estimates the
// probability p that its layer chooses it in a step. Its next use is then expected
// `layers until its layer runs + num_layers * (1/p - 1)` ticks from now: frequency decides, and
// among equals the layer that has just run goes first, because it comes round last. (Recency alone
// evicts in the order in which layers come round, which on a cyclic sweep is the worst one.)
//
// All counts decay alike, so the order inside a layer changes only by a use: each layer keeps its
// residents sorted, and the furthest expected use is found among one candidate per layer.
//
// Owner: a policy. Thread: its caller's. Memory is allocated in the constructor.
class UseFrequency {
 public:
  static constexpr int32_t kHalfLifeSteps = 64;

  UseFrequency(int32_t num_layers, int32_t num_experts);

  void OnUse(int32_t key, int64_t tick);
  void Add(int32_t key);  // becomes resident
  void Remove(int32_t key);

  struct Candidate {
    int32_t key = -1;  // none
    double ticks = 0;  // until its expected next use
  };
  // The resident expert with the furthest expected next use of those for which `evictable` is true.
  Candidate Furthest(int64_t tick, absl::FunctionRef<bool(int32_t)> evictable) const;

 private:
  double Weight(int64_t step) const;
  void AdvanceTo(int64_t step);
  void Insert(int32_t key);
  void Erase(int32_t key);
  int32_t LayerOf(int32_t key) const { return key / num_experts_; }

  const int32_t num_layers_;
  const int32_t num_experts_;
  double fractions_[kHalfLifeSteps];  // 2^(i / kHalfLifeSteps)
  // Counts grow by Weight(step) instead of decaying; `first_step_` has weight 1.
  int64_t first_step_ = 0;
  int64_t last_step_ = -1;
  double total_ = 0;           // of the weights of the steps so far
  std::vector<double> count_;  // [key]
  std::vector<uint8_t> resident_;
  // [layer][num_experts]: resident keys by ascending (count, key); `size_` of each layer.
  std::vector<int32_t> order_;
  std::vector<int32_t> size_;
};

}  // namespace moesaic
