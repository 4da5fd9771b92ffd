#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace moesaic {

// The matrices of one expert's feed-forward network.
struct ExpertShape {
  DType dtype = DType::kFloat32;
  int64_t hidden = 0;
  int64_t units = 0;  // intermediate size
  bool gated = true;  // {gate, up, down}; false: {up, down}
};

// How an expert is cut into stripes of equal slots. A stripe is `units_per_stripe` consecutive
// intermediate units: a complete partial FFN whose output adds to the others'.
struct StripeLayout {
  int64_t units = 0;             // of the expert
  int64_t units_per_stripe = 0;  // S, a multiple of 64
  int64_t num_stripes = 0;

  int64_t FirstUnit(int64_t stripe) const { return stripe * units_per_stripe; }
  // Units of the stripe that exist in the expert; the rest of the last stripe is zero padding.
  int64_t ValidUnits(int64_t stripe) const;
};

// Slots are a multiple of this, for direct I/O.
inline constexpr int64_t kStripeAlignmentBytes = 4096;

// About 1.5 MiB per stripe, or 3 MiB when the expert is over 64 MiB; among sizes within half of
// that, the one with the least padding, then the nearest. Every field of `shape` is positive.
StripeLayout ChooseStripeLayout(const ExpertShape& shape);

}  // namespace moesaic
