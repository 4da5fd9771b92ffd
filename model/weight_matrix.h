#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/dtype.h"

namespace moesaic {

// A row-major matrix to be packed: part of a mapped checkpoint, or random numbers that are a
// function of seed and element alone (LoadFormat::kDummy). Borrows the mapping. Any thread.
struct WeightMatrix {
  std::string tensor;  // of the checkpoint, for Release
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::span<const std::byte> data = {};  // empty: generated; aligned to 1 byte only

  // Generated: uniform with mean `mean` and standard deviation `deviation`.
  uint64_t seed = 0;
  float mean = 0.0f;
  float deviation = 0.0f;

  bool generated() const { return data.empty(); }
  int64_t row_bytes() const { return cols * static_cast<int64_t>(DTypeBytes(dtype)); }
  // Rows [first, first + count) where they lie, or empty when generated.
  std::span<const std::byte> Rows(int64_t first, int64_t count) const;
  // Where element [row][col] lies if it can be read in place as `wanted`, else null: another type,
  // not aligned, or generated.
  const void* InPlace(int64_t row, int64_t col, DType wanted) const;
};

// A rectangle of a matrix, converted to `dtype` into `out` with row stride `out_stride` (elements).
// To bfloat16 it rounds to nearest even; to float32 it is exact.
void CopyWeights(const WeightMatrix& matrix,
                 int64_t first_row,
                 int64_t num_rows,
                 int64_t first_col,
                 int64_t num_cols,
                 DType dtype,
                 void* out,
                 int64_t out_stride);

}  // namespace moesaic
