#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "model/weight_matrix.h"

namespace moesaic {

// Where a load takes its matrices from: a checkpoint, each checked against the shape that
// config.json promises, or random numbers (a null checkpoint) scaled so that activations keep their
// size from layer to layer. Thread: one.
class WeightSource {
 public:
  WeightSource(const Checkpoint* checkpoint, uint64_t seed)
      : checkpoint_(checkpoint), seed_(seed) {}

  // Errors are Checkpoint::FindWeight's.
  absl::StatusOr<WeightMatrix> Matrix(const std::string& name, int64_t rows, int64_t cols);
  // One row; a generated one holds `generated_value` everywhere.
  absl::StatusOr<WeightMatrix> Vector(const std::string& name, int64_t size, float generated_value);
  // The `count` matrices of a tensor [count, rows, cols].
  absl::StatusOr<std::vector<WeightMatrix>> Matrices(const std::string& name,
                                                     int64_t count,
                                                     int64_t rows,
                                                     int64_t cols);

  // Tensors of the checkpoint that were not asked for, in order.
  std::vector<std::string_view> Unused() const;

  // Matrices (not vectors) handed out so far that hold more than bfloat16 can.
  int64_t matrices_wider_than_bfloat16() const { return matrices_wider_than_bfloat16_; }

 private:
  absl::StatusOr<TensorView> Find(const std::string& name, std::span<const int64_t> shape);

  const Checkpoint* const checkpoint_;
  const uint64_t seed_;
  std::set<std::string, std::less<>> used_;
  int64_t matrices_wider_than_bfloat16_ = 0;
};

// Rows [first, first + count) of a matrix from a checkpoint.
WeightMatrix RowSlice(const WeightMatrix& matrix, int64_t first, int64_t count);

}  // namespace moesaic
