#pragma once

// The reduction that RMSNorm and QK-norm share.

#include "kernels/cpu/vector.h"

namespace moesaic::kernels::MOESAIC_ISA {

// Sum of squares in an order that depends on `count` alone: four running vectors, then a tree.
MOESAIC_INLINE float SumOfSquares(const float* x, int64_t count) {
  Vec sums[4] = {Zero(), Zero(), Zero(), Zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const Vec v = Load(x + i + j * kLanes);
      sums[j] = MulAdd(v, v, sums[j]);
    }
  }
  for (; i + kLanes <= count; i += kLanes) {
    const Vec v = Load(x + i);
    sums[0] = MulAdd(v, v, sums[0]);
  }
  if (i < count) {
    const Vec v = LoadPartial(x + i, count - i);
    sums[0] = MulAdd(v, v, sums[0]);
  }
  return ReduceAdd((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

MOESAIC_INLINE float InverseRms(const float* x, int64_t count, float eps) {
  return 1.0f / SquareRoot(SumOfSquares(x, count) / static_cast<float>(count) + eps);
}

}  // namespace moesaic::kernels::MOESAIC_ISA
