#include "memory/use_frequency.h"

#include <algorithm>
#include <cmath>

namespace moesaic {
namespace {

// Far below the largest double's 1023, so that sums of weights stay finite.
constexpr int64_t kMaxExponent = 256;

}  // namespace

UseFrequency::UseFrequency(int32_t num_layers, int32_t num_experts)
    : num_layers_(num_layers),
      num_experts_(num_experts),
      count_(static_cast<size_t>(num_layers) * num_experts),
      resident_(count_.size()),
      order_(count_.size()),
      size_(num_layers) {
  // Square roots and products round the same everywhere, as exp2 need not: equal inputs give equal
  // victims on every machine.
  double root = 2;
  for (int32_t i = kHalfLifeSteps; i > 1; i /= 2) root = std::sqrt(root);
  fractions_[0] = 1;
  for (int32_t i = 1; i < kHalfLifeSteps; ++i) fractions_[i] = fractions_[i - 1] * root;
}

double UseFrequency::Weight(int64_t step) const {
  const int64_t age = step - first_step_;
  return std::ldexp(fractions_[age % kHalfLifeSteps], static_cast<int>(age / kHalfLifeSteps));
}

void UseFrequency::AdvanceTo(int64_t step) {
  if (step <= last_step_) return;
  if (last_step_ < 0) first_step_ = step;
  if (const int64_t halvings = (step - first_step_) / kHalfLifeSteps; halvings > kMaxExponent) {
    const auto exponent = static_cast<int>(-std::min<int64_t>(halvings, 2000));
    for (double& count : count_) count = std::ldexp(count, exponent);
    total_ = std::ldexp(total_, exponent);
    first_step_ += halvings * kHalfLifeSteps;
  }
  last_step_ = step;
  total_ += Weight(step);
}

void UseFrequency::Insert(int32_t key) {
  const int32_t layer = LayerOf(key);
  int32_t* const begin = order_.data() + static_cast<size_t>(layer) * num_experts_;
  int32_t* const end = begin + size_[layer]++;
  const auto before = [this](int32_t a, int32_t b) {
    return count_[a] != count_[b] ? count_[a] < count_[b] : a < b;
  };
  int32_t* const place = std::lower_bound(begin, end, key, before);
  std::copy_backward(place, end, end + 1);
  *place = key;
}

void UseFrequency::Erase(int32_t key) {
  const int32_t layer = LayerOf(key);
  int32_t* const begin = order_.data() + static_cast<size_t>(layer) * num_experts_;
  int32_t* const end = begin + size_[layer]--;
  std::copy(std::find(begin, end, key) + 1, end, std::find(begin, end, key));
}

void UseFrequency::OnUse(int32_t key, int64_t tick) {
  AdvanceTo(tick / num_layers_);
  if (resident_[key]) Erase(key);
  count_[key] += Weight(last_step_);
  if (resident_[key]) Insert(key);
}

void UseFrequency::Add(int32_t key) {
  if (resident_[key]) return;
  resident_[key] = 1;
  Insert(key);
}

void UseFrequency::Remove(int32_t key) {
  if (!resident_[key]) return;
  Erase(key);
  resident_[key] = 0;
}

UseFrequency::Candidate UseFrequency::Furthest(int64_t tick,
                                               absl::FunctionRef<bool(int32_t)> evictable) const {
  const auto now = static_cast<int32_t>(tick % num_layers_);
  Candidate best;
  // From the layer that has just chosen backwards: among equals the first found stays.
  for (int32_t distance = num_layers_; distance > 0; --distance) {
    const int32_t layer = (now + distance) % num_layers_;
    const int32_t* const begin = order_.data() + static_cast<size_t>(layer) * num_experts_;
    for (int32_t i = 0; i < size_[layer]; ++i) {
      const int32_t key = begin[i];
      // A resident that was never used was prefetched: as if used once, now.
      const double count = count_[key] > 0 ? count_[key] : 1;
      const double ticks = distance + num_layers_ * std::max(0.0, total_ / count - 1);
      if (best.key >= 0 && ticks <= best.ticks) break;
      if (!evictable(key)) continue;
      best = {key, ticks};
      break;
    }
  }
  return best;
}

}  // namespace moesaic
