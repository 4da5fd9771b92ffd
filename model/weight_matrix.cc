#include "model/weight_matrix.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace moesaic {
namespace {

// Four elements share one 64-bit hash, 16 bits each.
constexpr int64_t kElementsPerHash = 4;
constexpr float kSqrt3 = 1.7320508f;  // a uniform distribution over [-1, 1] deviates by 1 / sqrt(3)

uint64_t SplitMix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

template <typename T>
T FromFloat(float value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    return ToBFloat16(value);
  }
}

template <typename Out>
void GenerateRun(const WeightMatrix& matrix, int64_t first, int64_t count, Out* out) {
  const float scale = matrix.deviation * kSqrt3 / 32768.0f;
  int64_t i = 0;
  while (i < count) {
    const int64_t element = first + i;
    uint64_t bits = SplitMix(matrix.seed ^ static_cast<uint64_t>(element / kElementsPerHash));
    const int64_t skip = element % kElementsPerHash;
    const int64_t run = std::min(kElementsPerHash - skip, count - i);
    bits >>= 16 * skip;
    for (int64_t j = 0; j < run; ++j, bits >>= 16) {
      const float uniform = static_cast<float>(static_cast<int16_t>(bits & 0xffff));
      out[i + j] = FromFloat<Out>(matrix.mean + scale * uniform);
    }
    i += run;
  }
}

float Widen(float value) { return value; }
float Widen(Float16 value) { return ToFloat(value); }
float Widen(BFloat16 value) { return ToFloat(value); }

// The mapped bytes may be at any address, so elements are read by memcpy.
template <typename In, typename Out>
void ConvertRun(const std::byte* in, int64_t count, Out* out) {
  if constexpr (std::is_same_v<In, Out>) {
    std::memcpy(out, in, count * sizeof(Out));
  } else {
    for (int64_t i = 0; i < count; ++i) {
      In value;
      std::memcpy(&value, in + i * sizeof(In), sizeof(In));
      out[i] = FromFloat<Out>(Widen(value));
    }
  }
}

template <typename Out>
void CopyRun(const WeightMatrix& matrix, int64_t row, int64_t col, int64_t count, Out* out) {
  const int64_t first = row * matrix.cols + col;
  if (matrix.generated()) {
    GenerateRun(matrix, first, count, out);
    return;
  }
  const std::byte* in = matrix.data.data() + first * DTypeBytes(matrix.dtype);
  switch (matrix.dtype) {
    case DType::kFloat32:
      ConvertRun<float>(in, count, out);
      break;
    case DType::kFloat16:
      ConvertRun<Float16>(in, count, out);
      break;
    case DType::kBFloat16:
      ConvertRun<BFloat16>(in, count, out);
      break;
  }
}

template <typename Out>
void CopyRectangle(const WeightMatrix& matrix,
                   int64_t first_row,
                   int64_t num_rows,
                   int64_t first_col,
                   int64_t num_cols,
                   Out* out,
                   int64_t out_stride) {
  for (int64_t row = 0; row < num_rows; ++row) {
    CopyRun(matrix, first_row + row, first_col, num_cols, out + row * out_stride);
  }
}

}  // namespace

std::span<const std::byte> WeightMatrix::Rows(int64_t first, int64_t count) const {
  if (generated()) return {};
  return data.subspan(first * row_bytes(), count * row_bytes());
}

const void* WeightMatrix::InPlace(int64_t row, int64_t col, DType wanted) const {
  if (generated() || dtype != wanted) return nullptr;
  const std::byte* element = data.data() + (row * cols + col) * DTypeBytes(dtype);
  return reinterpret_cast<uintptr_t>(element) % DTypeBytes(dtype) == 0 ? element : nullptr;
}

void CopyWeights(const WeightMatrix& matrix,
                 int64_t first_row,
                 int64_t num_rows,
                 int64_t first_col,
                 int64_t num_cols,
                 DType dtype,
                 void* out,
                 int64_t out_stride) {
  if (dtype == DType::kFloat32) {
    CopyRectangle(matrix, first_row, num_rows, first_col, num_cols, static_cast<float*>(out),
                  out_stride);
  } else {
    CopyRectangle(matrix, first_row, num_rows, first_col, num_cols, static_cast<BFloat16*>(out),
                  out_stride);
  }
}

}  // namespace moesaic
