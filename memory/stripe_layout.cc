#include "memory/stripe_layout.h"

#include <algorithm>

#include "base/checked_math.h"

namespace moesaic {
namespace {

constexpr int64_t kUnitMultiple = 64;
constexpr int64_t kTargetBytes = 3 << 19;       // 1.5 MiB
constexpr int64_t kLargeTargetBytes = 3 << 20;  // 3 MiB
constexpr int64_t kLargeExpertBytes = 64 << 20;

}  // namespace

int64_t StripeLayout::ValidUnits(int64_t stripe) const {
  return std::clamp<int64_t>(units - FirstUnit(stripe), 0, units_per_stripe);
}

StripeLayout ChooseStripeLayout(const ExpertShape& shape) {
  const int64_t unit_bytes =
      (shape.gated ? 3 : 2) * shape.hidden * static_cast<int64_t>(DTypeBytes(shape.dtype));
  const bool large = shape.units > kLargeExpertBytes / unit_bytes;
  const int64_t target_units = (large ? kLargeTargetBytes : kTargetBytes) / unit_bytes;
  const int64_t whole_expert = RoundUp(shape.units, kUnitMultiple);
  const int64_t first =
      std::clamp(RoundUp(target_units / 2, kUnitMultiple), kUnitMultiple, whole_expert);
  const int64_t last = std::min(target_units + target_units / 2, whole_expert);

  StripeLayout best;
  int64_t best_padding = 0;
  int64_t best_distance = 0;
  for (int64_t units = first; units <= std::max(first, last); units += kUnitMultiple) {
    const int64_t stripes = CeilDiv(shape.units, units);
    const int64_t padding = stripes * units - shape.units;
    const int64_t distance = std::abs(units - target_units);
    if (best.num_stripes == 0 || padding < best_padding ||
        (padding == best_padding && distance < best_distance)) {
      best = {shape.units, units, stripes};
      best_padding = padding;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace moesaic
