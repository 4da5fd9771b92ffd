#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/aligned_buffer.h"
#include "kernels/attention.h"
#include "kernels/kernel_table.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace moesaic {

// Every intermediate of the largest step, allocated once at load. Sizes are per row, so a step
// touches only the head of each buffer.
//
// Owner and thread: the model's.
struct ActivationBuffers {
  // `max_rows` rows through the layers, `max_logits_rows` through the head.
  static absl::StatusOr<ActivationBuffers> Create(const ModelConfig& config,
                                                  const ModelWeights& weights,
                                                  const kernels::KernelTable& kernels,
                                                  int32_t max_rows,
                                                  int32_t max_logits_rows,
                                                  int num_threads);

  AlignedBuffer memory;       // holds all of the below but logits
  float* residual = nullptr;  // [rows, hidden]
  void* normed = nullptr;     // [rows, hidden] dtype
  float* qkv = nullptr;       // [rows, (heads + 2 kv_heads) * head_dim]
  void* q = nullptr;          // [rows, heads * head_dim] dtype
  void* attention = nullptr;  // [rows, heads * head_dim] dtype
  void* attention_workspace = nullptr;
  float* gate_logits = nullptr;       // [rows, num_experts]
  int32_t* gate_experts = nullptr;    // [rows, top_k]
  float* gate_weights = nullptr;      // [rows, top_k]
  int32_t* expert_offsets = nullptr;  // [num_experts + 1]
  int32_t* expert_rows = nullptr;     // [rows * top_k]
  float* expert_weights = nullptr;    // [rows * top_k]
  int32_t* every_row = nullptr;       // [rows] 0, 1, 2...
  float* ones = nullptr;              // [rows]
  float* shared_weights = nullptr;    // [rows]
  void* ffn_workspace = nullptr;
  void* head_input = nullptr;                       // [logits_rows, hidden] dtype
  int64_t* kv_slots = nullptr;                      // [rows]
  kernels::AttentionSequence* sequences = nullptr;  // [rows]: each sequence has at least one

  // [logits_rows, vocab]. Address space for the largest step; memory is committed as steps use it.
  AlignedBuffer logits;
};

}  // namespace moesaic
