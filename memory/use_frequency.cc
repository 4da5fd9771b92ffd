#include "memory/use_frequency.h"

#include <algorithm>
#include <cmath>

namespace moesaic {
namespace {

// Whatever is older has faded.
constexpr int64_t kMaxHalvings = 2000;

}  // namespace

UseFrequency::UseFrequency(int32_t num_layers, int32_t num_experts)
    : num_layers_(num_layers),
      num_experts_(num_experts),
      layers_(num_layers),
      counts_(static_cast<size_t>(num_layers) * num_experts),
      resident_(counts_.size()),
      order_(counts_.size()) {
  // Square roots and products round the same everywhere, as exp2 need not: equal inputs give equal
  // victims on every machine.
  double root = 0.5;
  for (int32_t i = kSlowHalfLifeSteps; i > 1; i /= 2) root = std::sqrt(root);
  slow_factors_[0] = 1;
  for (int32_t i = 1; i < kSlowHalfLifeSteps; ++i) slow_factors_[i] = slow_factors_[i - 1] * root;
}

void UseFrequency::AdvanceTo(int32_t layer, int64_t step) {
  Layer& state = layers_[layer];
  if (step <= state.step) return;
  if (state.step >= 0) {
    const int64_t age = step - state.step;
    const auto halved = [](double factor, int64_t halvings) {
      return std::ldexp(factor, static_cast<int>(-std::min(halvings, kMaxHalvings)));
    };
    const double fast = halved(1, age / kFastHalfLifeSteps);
    const double slow = halved(slow_factors_[age % kSlowHalfLifeSteps], age / kSlowHalfLifeSteps);
    Counts* const counts = counts_.data() + static_cast<size_t>(layer) * num_experts_;
    for (int32_t expert = 0; expert < num_experts_; ++expert) counts[expert].Decay(fast, slow);
    state.steps.Decay(fast, slow);
  }
  state.step = step;
  state.steps.Increment();
  state.sorted = false;
}

void UseFrequency::Sort(int32_t layer) {
  Layer& state = layers_[layer];
  if (state.sorted) return;
  std::sort(Order(layer), Order(layer) + state.size, [this](int32_t a, int32_t b) {
    return Mixed(a) != Mixed(b) ? Mixed(a) < Mixed(b) : a < b;
  });
  state.sorted = true;
}

void UseFrequency::OnUse(int32_t key, int64_t tick) {
  const int32_t layer = key / num_experts_;
  AdvanceTo(layer, tick / num_layers_);
  counts_[key].Increment();
  layers_[layer].sorted = false;
}

void UseFrequency::Add(int32_t key) {
  if (resident_[key]) return;
  resident_[key] = 1;
  Layer& layer = layers_[key / num_experts_];
  Order(key / num_experts_)[layer.size++] = key;
  layer.sorted = false;
}

void UseFrequency::Remove(int32_t key) {
  if (!resident_[key]) return;
  resident_[key] = 0;
  const int32_t layer = key / num_experts_;
  int32_t* const end = Order(layer) + layers_[layer].size--;
  int32_t* const place = std::find(Order(layer), end, key);
  std::copy(place + 1, end, place);
}

UseFrequency::Candidate UseFrequency::Furthest(int64_t tick,
                                               absl::FunctionRef<bool(int32_t)> evictable) {
  const auto now = static_cast<int32_t>(tick % num_layers_);
  Candidate best;
  // From the layer that has just chosen backwards: among equals the first found stays.
  for (int32_t distance = num_layers_; distance > 0; --distance) {
    const int32_t layer = (now + distance) % num_layers_;
    Sort(layer);
    const double steps = layers_[layer].steps.Mixed();
    for (int32_t i = 0; i < layers_[layer].size; ++i) {
      const int32_t key = Order(layer)[i];
      const double ticks = distance + num_layers_ * std::max(0.0, steps / Mixed(key) - 1);
      if (best.key >= 0 && ticks <= best.ticks) break;
      if (!evictable(key)) continue;
      best = {key, ticks};
      break;
    }
  }
  return best;
}

}  // namespace moesaic
