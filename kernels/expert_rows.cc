#include <algorithm>

#include "kernels/expert_ffn.h"

namespace moesaic::kernels {

void GroupRowsByExpert(int64_t num_rows,
                       int64_t top_k,
                       int64_t num_experts,
                       const int32_t* experts,
                       const float* gate_weights,
                       int32_t* offsets,
                       int32_t* rows,
                       float* weights) {
  const int64_t entries = num_rows * top_k;
  std::fill(offsets, offsets + num_experts + 1, 0);
  for (int64_t i = 0; i < entries; ++i) ++offsets[experts[i] + 1];
  for (int64_t e = 0; e < num_experts; ++e) offsets[e + 1] += offsets[e];
  // Each offset runs from its expert's start to its end, which is the next expert's start...
  for (int64_t i = 0; i < entries; ++i) {
    const int32_t slot = offsets[experts[i]]++;
    rows[slot] = static_cast<int32_t>(i / top_k);
    weights[slot] = gate_weights[i];
  }
  // ...so that moving them up by one restores the starts.
  std::copy_backward(offsets, offsets + num_experts, offsets + num_experts + 1);
  offsets[0] = 0;
}

}  // namespace moesaic::kernels
