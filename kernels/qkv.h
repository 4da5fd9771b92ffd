#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/stream.h"

namespace moesaic::kernels {

enum class QkNorm : uint8_t {
  kNone,
  kPerHead,   // RMSNorm of each head with a weight of [head_dim] (Qwen3)
  kAllHeads,  // RMSNorm over all heads together, weight of [heads * head_dim] (OLMoE)
};

// Everything between the QKV projection and attention: clip, QK-norm, rotary embedding, KV-cache
// write; one pass over the row. All arithmetic in float32, rounded once to `dtype` at the end.
struct QkvArgs {
  DType dtype = DType::kFloat32;  // of q_output and the KV cache
  int64_t rows = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  const float* qkv = nullptr;  // [rows, (num_heads + 2 * num_kv_heads) * head_dim]: q, k, v
  float clip =
      0.0f;  // > 0 clamps q, k and v to [-clip, clip] after QK-norm (OLMoE's clip_qkv order)
  QkNorm qk_norm = QkNorm::kNone;
  const float* q_norm_weight = nullptr;
  const float* k_norm_weight = nullptr;
  float norm_eps = 0.0f;
  int64_t rotary_dim =
      0;  // leading dimensions of a head that rotate, as halves (x[i], x[i + rotary_dim/2])
  const float* cos_table = nullptr;  // [max_positions, rotary_dim / 2]
  const float* sin_table = nullptr;
  const int32_t* positions = nullptr;  // [rows]
  const int64_t* kv_slots = nullptr;   // [rows] block * kKvBlockTokens + offset
  void* q_output = nullptr;            // [rows, num_heads * head_dim] dtype
  void* k_cache = nullptr;             // this layer's [blocks][num_kv_heads][16][head_dim] dtype
  void* v_cache = nullptr;
};
using QkvFn = void (*)(const QkvArgs& args, Stream& stream);

}  // namespace moesaic::kernels
