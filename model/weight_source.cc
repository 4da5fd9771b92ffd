#include "model/weight_source.h"

#include <array>
#include <cmath>

#include "base/status_macros.h"

namespace moesaic {
namespace {

// FNV-1a: the same numbers in every build.
uint64_t HashName(std::string_view name, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace

absl::StatusOr<TensorView> WeightSource::Find(const std::string& name,
                                              std::span<const int64_t> shape) {
  used_.insert(name);
  return checkpoint_->FindWeight(name, shape);
}

std::vector<std::string_view> WeightSource::Unused() const {
  std::vector<std::string_view> unused;
  if (checkpoint_ == nullptr) return unused;
  for (const std::string_view name : checkpoint_->names()) {
    if (!used_.contains(name)) unused.push_back(name);
  }
  return unused;
}

absl::StatusOr<WeightMatrix> WeightSource::Matrix(const std::string& name,
                                                  int64_t rows,
                                                  int64_t cols) {
  WeightMatrix matrix{.tensor = name, .rows = rows, .cols = cols};
  if (checkpoint_ == nullptr) {
    matrix.seed = HashName(name, seed_);
    matrix.deviation = 1.0f / std::sqrt(static_cast<float>(cols));
    return matrix;
  }
  MOESAIC_ASSIGN_OR_RETURN(const TensorView tensor, Find(name, std::array{rows, cols}));
  matrix.dtype = *tensor.dtype;
  matrix.data = tensor.data;
  if (matrix.dtype != DType::kBFloat16) ++matrices_wider_than_bfloat16_;
  return matrix;
}

absl::StatusOr<WeightMatrix> WeightSource::Vector(const std::string& name,
                                                  int64_t size,
                                                  float generated_value) {
  WeightMatrix matrix{.tensor = name, .rows = 1, .cols = size};
  if (checkpoint_ == nullptr) {
    matrix.mean = generated_value;
    return matrix;
  }
  MOESAIC_ASSIGN_OR_RETURN(const TensorView tensor, Find(name, std::array{size}));
  matrix.dtype = *tensor.dtype;
  matrix.data = tensor.data;
  return matrix;
}

absl::StatusOr<std::vector<WeightMatrix>> WeightSource::Matrices(const std::string& name,
                                                                 int64_t count,
                                                                 int64_t rows,
                                                                 int64_t cols) {
  MOESAIC_ASSIGN_OR_RETURN(const TensorView tensor, Find(name, std::array{count, rows, cols}));
  if (*tensor.dtype != DType::kBFloat16) ++matrices_wider_than_bfloat16_;
  const int64_t bytes = rows * cols * static_cast<int64_t>(DTypeBytes(*tensor.dtype));
  std::vector<WeightMatrix> matrices;
  matrices.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    matrices.push_back({.tensor = name,
                        .dtype = *tensor.dtype,
                        .rows = rows,
                        .cols = cols,
                        .data = tensor.data.subspan(i * bytes, bytes)});
  }
  return matrices;
}

WeightMatrix RowSlice(const WeightMatrix& matrix, int64_t first, int64_t count) {
  WeightMatrix slice = matrix;
  slice.rows = count;
  slice.data = matrix.Rows(first, count);
  return slice;
}

}  // namespace moesaic
