#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/dtype.h"
#include "kernels/kernel_table.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace moesaic {

// Every shape of a model's packed weights, and how its experts are cut into stripes, before
// anything is allocated.
ModelWeights PlanWeights(const ModelConfig& config,
                         DType dtype,
                         const kernels::KernelTable& kernels);

// What ModelWeights::bytes() will be once `plan` is filled. InvalidArgument when that is beyond
// what can be counted.
absl::StatusOr<int64_t> PlannedBytes(const ModelWeights& plan,
                                     const ModelConfig& config,
                                     const kernels::KernelTable& kernels);

// Rows of Q, K and V stacked.
inline int64_t QkvFeatures(const ModelConfig& config) {
  return (int64_t{config.num_heads} + 2 * int64_t{config.num_kv_heads}) * config.head_dim;
}

}  // namespace moesaic
