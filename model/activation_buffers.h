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

// Every intermediate of the largest step in one pool, at offsets planned once at load
// (decoder_activations.h): buffers whose lives do not meet share memory. Sizes are per row, so a
// step touches only the head of each buffer.
//
// Owner and thread: the model's.
struct ActivationBuffers {
  // `max_rows` rows through the layers, `max_logits_rows` through the head; `tiered`: the routed
  // experts come through an ExpertMemory.
  static absl::StatusOr<ActivationBuffers> Create(const ModelConfig& config,
                                                  const ModelWeights& weights,
                                                  const kernels::KernelTable& kernels,
                                                  int32_t max_rows,
                                                  int32_t max_logits_rows,
                                                  int num_threads,
                                                  bool tiered = false);

  AlignedBuffer memory;  // holds all of the below but logits
  // Shapes: DecoderActivations.
  float* residual = nullptr;
  void* attention_input = nullptr;
  float* qkv = nullptr;
  void* q = nullptr;
  void* attention = nullptr;
  void* attention_workspace = nullptr;
  void* ffn_input = nullptr;
  float* gate_logits = nullptr;
  int32_t* gate_experts = nullptr;
  float* gate_weights = nullptr;
  int32_t* expert_offsets = nullptr;
  int32_t* expert_rows = nullptr;
  float* expert_weights = nullptr;
  float* shared_weights = nullptr;
  float* expert_sums = nullptr;  // TieredExperts; null when every expert is in RAM
  void* ffn_workspace = nullptr;
  void* mlp_workspace = nullptr;
  void* head_input = nullptr;
  int32_t* every_row = nullptr;                               // 0, 1, 2...
  float* ones = nullptr;                                      // 1, 1, 1...
  int64_t* kv_slots = nullptr;                                // of the step's rows
  kernels::AttentionSequence* sequences = nullptr;            // of the step
  kernels::AttentionSequence* attention_sequences = nullptr;  // cut to the rows attended at a time

  // [logits_rows, vocab]. Address space for the largest step; memory is committed as steps use it.
  AlignedBuffer logits;
};

}  // namespace moesaic
