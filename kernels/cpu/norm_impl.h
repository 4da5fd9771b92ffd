#pragma once

// kernels/norm.h for the instruction set of the including unit.

#include "kernels/cpu/inverse_rms.h"
#include "kernels/cpu/parallel_rows.h"
#include "kernels/cpu/vector.h"
#include "kernels/norm.h"

namespace moesaic::kernels::MOESAIC_ISA {

template <typename T>
MOESAIC_INLINE void RmsNormRow(const RmsNormArgs& args, const float* x, T* y) {
  const Vec inverse_rms = Broadcast(InverseRms(x, args.dim, args.eps));
  int64_t i = 0;
  for (; i + kLanes <= args.dim; i += kLanes) {
    Store(y + i, Load(x + i) * inverse_rms * Load(args.weight + i));
  }
  if (const int64_t left = args.dim - i; left > 0) {
    StorePartial(y + i, LoadPartial(x + i, left) * inverse_rms * LoadPartial(args.weight + i, left),
                 left);
  }
}

static void RmsNormRows(const void* opaque, int64_t begin, int64_t end) {
  const RmsNormArgs& args = *static_cast<const RmsNormArgs*>(opaque);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t source = args.row_index == nullptr ? row : args.row_index[row];
    const float* x = args.input + source * args.dim;
    if (args.output_dtype == DType::kBFloat16) {
      RmsNormRow(args, x, static_cast<BFloat16Bits*>(args.output) + row * args.dim);
    } else {
      RmsNormRow(args, x, static_cast<float*>(args.output) + row * args.dim);
    }
  }
}

void RmsNorm(const RmsNormArgs& args, Stream& stream) {
  ForEachRowRange(stream, args.rows, args.dim, &RmsNormRows, &args);
}

}  // namespace moesaic::kernels::MOESAIC_ISA
