#pragma once

#include <cstdint>

#include "base/stream.h"

namespace moesaic::kernels {

// From gate logits to routed experts: softmax over all experts, the top k (equal logits: the lower
// id first), and their weights, renormalised to sum to 1 if `renormalize` (Mixtral always; Qwen by
// norm_topk_prob).
struct GateTopKArgs {
  int64_t rows = 0;
  int64_t num_experts = 0;
  int64_t top_k = 0;
  bool renormalize = false;
  const float* logits = nullptr;  // [rows, num_experts]
  int32_t* experts = nullptr;     // [rows, top_k], by descending weight
  float* weights = nullptr;       // [rows, top_k]
};
using GateTopKFn = void (*)(const GateTopKArgs& args, Stream& stream);

// y[r] = sigmoid(x[r] . w): the shared expert's gate (Qwen2-MoE). `input` is in the model's dtype
// via LinearFn; this is the last step only.
struct SigmoidArgs {
  int64_t count = 0;
  float* values = nullptr;  // in place
};
using SigmoidFn = void (*)(const SigmoidArgs& args, Stream& stream);

}  // namespace moesaic::kernels
