#include "model/activation_buffers.h"

#include <algorithm>
#include <numeric>
#include <type_traits>

#include "base/status_macros.h"
#include "memory/activation_plan.h"
#include "model/decoder_activations.h"

namespace moesaic {

absl::StatusOr<ActivationBuffers> ActivationBuffers::Create(const ModelConfig& config,
                                                            const ModelWeights& weights,
                                                            const kernels::KernelTable& kernels,
                                                            int32_t max_rows,
                                                            int32_t max_logits_rows,
                                                            int num_threads) {
  ActivationSizes sizes = {.dtype = weights.dtype,
                           .rows = max_rows,
                           .attention_rows = std::min<int64_t>(max_rows, kAttentionRowsAtATime),
                           .logits_rows = max_logits_rows};
  sizes.attention_workspace_bytes = static_cast<int64_t>(kernels.attention_workspace_bytes(
      config.num_heads, config.num_kv_heads, config.head_dim, num_threads));
  const auto workspace = [&](const PackedExperts& experts, int64_t num_experts, int64_t top_k) {
    if (experts.layout.num_stripes == 0) return int64_t{0};
    return static_cast<int64_t>(
        kernels.expert_ffn_workspace_bytes(experts.stripe, experts.layout.num_stripes, num_experts,
                                           max_rows, max_rows * top_k, num_threads));
  };
  sizes.ffn_workspace_bytes = workspace(weights.experts, config.num_experts, config.top_k);
  sizes.mlp_workspace_bytes =
      std::max(workspace(weights.shared_experts, 1, 1), workspace(weights.dense_mlps, 1, 1));

  const DecoderActivations tensors = DescribeActivations(config, sizes);
  const ActivationPlan plan = PlanActivations(tensors.graph);
  ActivationBuffers buffers;
  MOESAIC_ASSIGN_OR_RETURN(buffers.memory, AlignedBuffer::Allocate(plan.peak_bytes, "activations"));
  const auto place = [&](auto*& pointer, int32_t tensor) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(buffers.memory.data() +
                                                                           plan.offsets[tensor]);
  };
  place(buffers.residual, tensors.residual);
  place(buffers.attention_input, tensors.attention_input);
  place(buffers.qkv, tensors.qkv);
  place(buffers.q, tensors.q);
  place(buffers.attention, tensors.attention);
  place(buffers.attention_workspace, tensors.attention_workspace);
  place(buffers.ffn_input, tensors.ffn_input);
  place(buffers.gate_logits, tensors.gate_logits);
  place(buffers.gate_experts, tensors.gate_experts);
  place(buffers.gate_weights, tensors.gate_weights);
  place(buffers.expert_offsets, tensors.expert_offsets);
  place(buffers.expert_rows, tensors.expert_rows);
  place(buffers.expert_weights, tensors.expert_weights);
  place(buffers.shared_weights, tensors.shared_weights);
  place(buffers.ffn_workspace, tensors.ffn_workspace);
  place(buffers.mlp_workspace, tensors.mlp_workspace);
  place(buffers.head_input, tensors.head_input);
  place(buffers.every_row, tensors.every_row);
  place(buffers.ones, tensors.ones);
  place(buffers.kv_slots, tensors.kv_slots);
  place(buffers.sequences, tensors.sequences);
  place(buffers.attention_sequences, tensors.attention_sequences);
  std::iota(buffers.every_row, buffers.every_row + max_rows, 0);
  std::fill_n(buffers.ones, max_rows, 1.0f);

  const int64_t logits_bytes = int64_t{max_logits_rows} * config.vocab_size * sizeof(float);
  MOESAIC_ASSIGN_OR_RETURN(buffers.logits, AlignedBuffer::Allocate(logits_bytes, "logits"));
  return buffers;
}

}  // namespace moesaic
