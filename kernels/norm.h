#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/stream.h"

namespace moesaic::kernels {

// y = x / sqrt(mean(x^2) + eps) * weight, in float32, rounded once to the output type.
struct RmsNormArgs {
  int64_t rows = 0;
  int64_t dim = 0;
  float eps = 0.0f;
  const float* input = nullptr;        // [rows, dim], or gathered by `row_index`
  const int32_t* row_index = nullptr;  // [rows] source rows, or null for 0..rows-1
  const float* weight = nullptr;       // [dim]
  DType output_dtype = DType::kFloat32;
  void* output = nullptr;  // [rows, dim] output_dtype
};
using RmsNormFn = void (*)(const RmsNormArgs& args, Stream& stream);

}  // namespace moesaic::kernels
