#include "model/family.h"

#include <algorithm>
#include <array>

#include "base/str_cat.h"

namespace moesaic {
namespace {

constexpr std::array<Family, 4> kFamilies = {{
    {
        .architecture = "Qwen3MoeForCausalLM",
        .default_kv_heads = 4,
        .attention_bias = AttentionBiasRule::kQkvAndOutput,
        .qk_norm = kernels::QkNorm::kPerHead,
        .sliding_window = SlidingWindowRule::kEveryLayerIfUsed,
        .default_max_positions = 32768,
        .expert_units_field = "moe_intermediate_size",
        .default_expert_units = 768,
        .default_experts = 128,
        .default_top_k = 8,
        .has_dense_layers = true,
        .default_dense_units = 6144,
    },
    {
        .architecture = "Qwen2MoeForCausalLM",
        .default_kv_heads = 16,
        .attention_bias = AttentionBiasRule::kQkv,
        .sliding_window = SlidingWindowRule::kLayerTypes,
        .default_max_positions = 32768,
        .expert_units_field = "moe_intermediate_size",
        .default_expert_units = 1408,
        .default_experts = 60,
        .default_top_k = 4,
        .has_dense_layers = true,
        .default_shared_expert_units = 5632,
        .default_dense_units = 5632,
    },
    {
        .architecture = "MixtralForCausalLM",
        .default_kv_heads = 8,
        .sliding_window = SlidingWindowRule::kEveryLayer,
        .default_max_positions = 131072,
        .default_rope_theta = 1e6,
        .default_norm_eps = 1e-5,
        .expert_units_field = "intermediate_size",
        .default_expert_units = 14336,
        .default_experts = 8,
        .default_top_k = 2,
        .always_renormalizes = true,
        .default_bos = 1,
        .default_eos = 2,
        .original_moe_block = "block_sparse_moe",
        .gate_proj = "w1",
        .up_proj = "w3",
        .down_proj = "w2",
    },
    {
        .architecture = "OlmoeForCausalLM",
        .attention_bias = AttentionBiasRule::kQkvAndOutput,
        .qk_norm = kernels::QkNorm::kAllHeads,
        .has_clip_qkv = true,
        .default_max_positions = 4096,
        .default_norm_eps = 1e-5,
        .expert_units_field = "intermediate_size",
        .default_expert_units = 2048,
        .default_experts = 64,
        .default_top_k = 8,
        .default_eos = 50279,
        .default_pad = 1,
    },
}};

std::string LayerPrefix(int32_t layer) { return StrCat("model.layers.", layer, "."); }

MlpTensors GatedMlp(std::string_view prefix) {
  return {.gate = StrCat(prefix, ".gate_proj.weight"),
          .up = StrCat(prefix, ".up_proj.weight"),
          .down = StrCat(prefix, ".down_proj.weight")};
}

}  // namespace

std::span<const Family> Families() { return kFamilies; }

const Family* FindFamily(std::string_view architecture) {
  const auto found = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& family) {
    return family.architecture == architecture;
  });
  return found == kFamilies.end() ? nullptr : &*found;
}

ExpertLayout FindExpertLayout(const Family& family,
                              const ModelConfig& config,
                              const Checkpoint& checkpoint) {
  const auto sparse = std::find(config.layer_is_sparse.begin(), config.layer_is_sparse.end(), true);
  const int32_t layer = sparse == config.layer_is_sparse.end()
                            ? 0
                            : static_cast<int32_t>(sparse - config.layer_is_sparse.begin());
  const auto holds = [&](std::string_view block, std::string_view tensor) {
    return checkpoint.Contains(StrCat(LayerPrefix(layer), block, ".", tensor));
  };
  ExpertLayout layout;
  layout.moe_block = holds(family.original_moe_block, "gate.weight") ? family.original_moe_block
                                                                     : std::string_view("mlp");
  layout.fused = holds(layout.moe_block, "experts.gate_up_proj");
  return layout;
}

LayerTensors LayerTensorNames(const ModelConfig& config,
                              const ExpertLayout& layout,
                              int32_t layer) {
  const std::string prefix = LayerPrefix(layer);
  const std::string attention = prefix + "self_attn.";
  LayerTensors names;
  names.input_norm = prefix + "input_layernorm.weight";
  names.q_weight = attention + "q_proj.weight";
  names.k_weight = attention + "k_proj.weight";
  names.v_weight = attention + "v_proj.weight";
  if (config.qkv_bias) {
    names.q_bias = attention + "q_proj.bias";
    names.k_bias = attention + "k_proj.bias";
    names.v_bias = attention + "v_proj.bias";
  }
  if (config.qk_norm != kernels::QkNorm::kNone) {
    names.q_norm = attention + "q_norm.weight";
    names.k_norm = attention + "k_norm.weight";
  }
  names.o_weight = attention + "o_proj.weight";
  if (config.output_bias) names.o_bias = attention + "o_proj.bias";
  names.post_attention_norm = prefix + "post_attention_layernorm.weight";
  if (!config.layer_is_sparse[layer]) {
    names.dense = GatedMlp(prefix + "mlp");
    return names;
  }
  const std::string block = StrCat(prefix, layout.moe_block, ".");
  names.gate = block + "gate.weight";
  if (layout.fused) {
    names.fused_gate_up = block + "experts.gate_up_proj";
    names.fused_down = block + "experts.down_proj";
  }
  if (config.shared_expert_units > 0) {
    names.shared_expert = GatedMlp(block + "shared_expert");
    names.shared_expert_gate = block + "shared_expert_gate.weight";
  }
  return names;
}

MlpTensors ExpertTensorNames(const Family& family,
                             const ExpertLayout& layout,
                             int32_t layer,
                             int32_t expert) {
  const std::string prefix = StrCat(LayerPrefix(layer), layout.moe_block, ".experts.", expert, ".");
  return {.gate = StrCat(prefix, family.gate_proj, ".weight"),
          .up = StrCat(prefix, family.up_proj, ".weight"),
          .down = StrCat(prefix, family.down_proj, ".weight")};
}

}  // namespace moesaic
