#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/stream.h"

namespace moesaic::kernels {

// A dense projection y = x W^T + b. Weights are packed once into the order that the kernel table's
// instruction set reads best; in bfloat16 mode inputs and weights are bfloat16 and the sum is
// float32. The order of a row's sum depends on the shape alone, never on the number of rows or
// threads.
struct LinearShape {
  int64_t out_features = 0;
  int64_t in_features = 0;
};

// Bytes of the packed form, a multiple of 64.
using PackedLinearBytesFn = size_t (*)(DType dtype, LinearShape shape);

// Packs output rows [first, first + count) of `weight` [count, in_features] (row-major, `dtype`)
// into `packed`. Ranges that are multiples of 64 rows (or end at out_features) may be packed by
// different threads.
using PackLinearFn = void (*)(
    DType dtype, LinearShape shape, const void* weight, int64_t first, int64_t count, void* packed);

struct LinearArgs {
  DType dtype = DType::kFloat32;  // of input and weight: float32 or bfloat16
  LinearShape shape;
  int64_t rows = 0;
  const void* input = nullptr;   // [rows, in_features] dtype, row stride in_features
  const void* weight = nullptr;  // packed
  const float* bias = nullptr;   // [out_features] or null
  float* output = nullptr;       // [rows, out_features] float32, row stride out_features
  bool accumulate = false;       // output += instead of output =
};
using LinearFn = void (*)(const LinearArgs& args, Stream& stream);

// Token embedding out of a row-major table, or out of a packed [vocab, hidden] linear (tied
// embeddings, one copy).
struct EmbeddingArgs {
  DType dtype = DType::kFloat32;
  LinearShape shape;    // [vocab, hidden]
  bool packed = false;  // `table` is in PackLinear's order
  const void* table = nullptr;
  int64_t rows = 0;
  const int32_t* tokens = nullptr;  // [rows], each in [0, vocab)
  float* output = nullptr;          // [rows, hidden] float32
};
using EmbeddingFn = void (*)(const EmbeddingArgs& args, Stream& stream);

}  // namespace moesaic::kernels
