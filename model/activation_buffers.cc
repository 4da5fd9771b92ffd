#include "model/activation_buffers.h"

#include <algorithm>
#include <numeric>
#include <type_traits>

#include "base/status_macros.h"
#include "memory/activation_plan.h"
#include "model/decoder_activations.h"
#include "model/tiered_experts.h"

namespace moesaic {

absl::StatusOr<ActivationBuffers> ActivationBuffers::Create(const ModelConfig& config,
                                                            const ModelWeights& weights,
                                                            const kernels::KernelTable& kernels,
                                                            int32_t max_rows,
                                                            int32_t max_logits_rows,
                                                            int num_threads,
                                                            bool tiered) {
  ActivationSizes sizes = {.dtype = weights.dtype,
                           .rows = max_rows,
                           .attention_rows = std::min<int64_t>(max_rows, kAttentionRowsAtATime),
                           .logits_rows = max_logits_rows};
  sizes.attention_workspace_bytes = static_cast<int64_t>(kernels.attention_workspace_bytes(
      config.num_heads, config.num_kv_heads, config.head_dim, num_threads));
  const auto workspace = [&](const PackedExperts& experts, int64_t work_stripes,
                             int64_t num_experts, int64_t top_k) {
    if (experts.layout.num_stripes == 0) return int64_t{0};
    return static_cast<int64_t>(kernels.expert_ffn_workspace_bytes(
        experts.stripe, work_stripes, num_experts, max_rows, max_rows * top_k, num_threads));
  };
  const int64_t stripes = weights.experts.layout.num_stripes;
  sizes.ffn_workspace_bytes =
      workspace(weights.experts, tiered ? TieredExperts::MaxWorkStripes(stripes) : stripes,
                config.num_experts, config.top_k);
  const auto whole_batch = [&](const PackedExperts& experts) {
    return workspace(experts, experts.layout.num_stripes, 1, 1);
  };
  sizes.mlp_workspace_bytes =
      std::max(whole_batch(weights.shared_experts), whole_batch(weights.dense_mlps));
  if (tiered) {
    sizes.expert_sums_bytes = TieredExperts::SumsRows(max_rows, config.top_k) * config.hidden_size *
                              static_cast<int64_t>(sizeof(float));
  }

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
  if (tiered) place(buffers.expert_sums, tensors.expert_sums);
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
