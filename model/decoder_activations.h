#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "memory/activation_graph.h"
#include "model/model_config.h"

namespace moesaic {

// The largest step of a decoder, and how it is cut.
struct ActivationSizes {
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t attention_rows = 0;  // run through a layer's attention at a time, see below
  int64_t logits_rows = 0;
  int64_t attention_workspace_bytes = 0;
  int64_t ffn_workspace_bytes = 0;  // of the routed experts
  int64_t mlp_workspace_bytes = 0;  // of what every row visits: shared experts, dense layers
  // Stripes outermost, when experts stream: the running sums, float32 [rows, hidden], of experts
  // whose stripes come in several calls. 0 when every expert is resident.
  int64_t expert_sums_bytes = 0;
};

// Rows outermost: the rows of a step go through the whole attention half of a layer (norm,
// projections, rotary embedding, attention) this many at a time, so that the wide tensors between
// never exist for all rows. Weights are read again for each, which at this many rows is little
// beside the arithmetic; a row's bits do not depend on it.
inline constexpr int64_t kAttentionRowsAtATime = 256;

// A decoder's operators as the executor runs them, with the tensors between them in its graph. One
// layer stands for all, as they repeat and only the residual stream lives from one to the next.
//
// Kernels deal rows, columns or heads to threads in any order, so nothing trails: tensors share
// memory when their lives do not meet, and attention, whose items own what they read and write,
// runs in place. Logits are not in the pool.
struct DecoderActivations {
  ActivationGraph graph;

  // Tensors.
  int32_t residual = 0;         // float32 [rows, hidden]
  int32_t attention_input = 0;  // [attention_rows, hidden] dtype
  int32_t qkv = 0;              // float32 [attention_rows, (heads + 2 kv_heads) * head_dim]
  int32_t q = 0;                // [attention_rows, heads * head_dim] dtype
  int32_t attention = 0;        // as q
  int32_t attention_workspace = 0;
  int32_t ffn_input = 0;       // [rows, hidden] dtype
  int32_t gate_logits = 0;     // float32 [rows, num_experts]
  int32_t gate_experts = 0;    // int32 [rows, top_k]
  int32_t gate_weights = 0;    // float32 [rows, top_k]
  int32_t expert_offsets = 0;  // int32 [num_experts + 1]
  int32_t expert_rows = 0;     // int32 [rows * top_k]
  int32_t expert_weights = 0;  // float32 [rows * top_k]
  int32_t shared_weights = 0;  // float32 [rows]
  int32_t ffn_workspace = 0;
  int32_t mlp_workspace = 0;
  int32_t expert_sums = 0;
  int32_t head_input = 0;  // [logits_rows, hidden] dtype
  // Read by every layer.
  int32_t every_row = 0;            // int32 [rows]
  int32_t ones = 0;                 // float32 [rows]
  int32_t kv_slots = 0;             // int64 [rows]
  int32_t sequences = 0;            // AttentionSequence [rows]
  int32_t attention_sequences = 0;  // AttentionSequence [attention_rows]
};
DecoderActivations DescribeActivations(const ModelConfig& config, const ActivationSizes& sizes);

}  // namespace moesaic
