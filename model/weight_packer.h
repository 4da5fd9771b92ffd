#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/progress.h"
#include "base/stream.h"
#include "checkpoint/checkpoint.h"
#include "kernels/kernel_table.h"
#include "memory/expert_sink.h"
#include "model/weight_matrix.h"
#include "model/weights.h"

namespace moesaic {

// The matrices of one expert.
struct ExpertMatrices {
  WeightMatrix gate;  // [units, hidden]
  WeightMatrix up;    // [units, hidden]
  WeightMatrix down;  // [hidden, units]
};

// Packs matrices into the kernels' order on every thread of the pool, and gives each part of the
// checkpoint back as soon as it is packed: at no time is more than kMaxMappedBytes (or one expert)
// of it in memory.
//
// Thread: one. Lifetime: one load; `checkpoint` (null when weights are generated) and `progress`
// outlive it.
class WeightPacker {
 public:
  WeightPacker(const kernels::KernelTable& kernels,
               Stream stream,
               DType dtype,
               const Checkpoint* checkpoint,
               ProgressLine& progress);

  // `parts` stacked by rows, together linear.shape.
  absl::Status PackLinear(std::span<const WeightMatrix> parts, PackedLinear& linear);
  // Row-major, in the model's dtype.
  absl::Status PackTable(const WeightMatrix& matrix, AlignedBuffer& table);
  // Vectors one after the other, in float32.
  absl::Status PackVectors(std::span<const WeightMatrix> parts, AlignedBuffer& vector);
  // All experts of one layer of `experts` into `sink`, unless it has the layer.
  absl::Status PackExperts(std::span<const ExpertMatrices> matrices,
                           int32_t layer,
                           const PackedExperts& experts,
                           ExpertSink& sink);

 private:
  // Rows of stacked matrices, in place where possible.
  const void* StackedRows(std::span<const WeightMatrix> parts,
                          int64_t first,
                          int64_t count,
                          int worker);
  absl::Status PackStripe(const ExpertMatrices& expert,
                          StripeId id,
                          int worker,
                          const PackedExperts& experts,
                          ExpertSink& sink);
  std::byte* Scratch(int worker, int64_t bytes);
  void Release(const WeightMatrix& matrix, int64_t first_row, int64_t num_rows);

  const kernels::KernelTable& kernels_;
  const Stream stream_;
  const DType dtype_;
  const Checkpoint* const checkpoint_;
  ProgressLine& progress_;
  std::vector<std::vector<std::byte>> scratch_;  // per worker
};

}  // namespace moesaic
