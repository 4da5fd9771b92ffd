#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint.h"
#include "kernels/qkv.h"
#include "model/model_config.h"

namespace moesaic {

// Which layers attend through config.json's sliding_window.
enum class SlidingWindowRule : uint8_t {
  kUnsupported,       // the family has none; a config that sets one is refused
  kEveryLayer,        // whenever sliding_window is set (Mixtral)
  kEveryLayerIfUsed,  // if use_sliding_window (Qwen3-MoE)
  kLayerTypes,        // the layers that layer_types names; without it, if use_sliding_window, even
                      // layers below max_window_layers (Qwen2-MoE)
};

// Where config.json says that Q, K and V (and the attention output) have biases.
enum class AttentionBiasRule : uint8_t {
  kNone,
  kQkv,           // qkv_bias, by default true: Q, K and V
  kQkvAndOutput,  // attention_bias, by default false: all four
};

// All that distinguishes one family of decoder-only MoE networks from another: how its config.json
// is read and what its tensors are called. Fields named default_* are what transformers assumes
// when config.json leaves a field out.
struct Family {
  std::string_view architecture;

  // Attention.
  int32_t default_kv_heads = 0;  // 0: as many as query heads
  AttentionBiasRule attention_bias = AttentionBiasRule::kNone;
  kernels::QkNorm qk_norm = kernels::QkNorm::kNone;
  bool has_clip_qkv = false;
  SlidingWindowRule sliding_window = SlidingWindowRule::kUnsupported;
  int32_t default_max_positions = 0;
  double default_rope_theta = 10000.0;
  double default_norm_eps = 1e-6;

  // Experts.
  const char* expert_units_field = nullptr;  // config field of an expert's intermediate size
  int32_t default_expert_units = 0;
  int32_t default_experts = 0;
  int32_t default_top_k = 0;
  bool always_renormalizes = false;         // else norm_topk_prob, by default false
  bool has_dense_layers = false;            // decoder_sparse_step and mlp_only_layers
  int32_t default_shared_expert_units = 0;  // 0: no shared expert
  int32_t default_dense_units = 0;

  std::optional<int32_t> default_bos = std::nullopt;
  std::optional<int32_t> default_eos = std::nullopt;
  std::optional<int32_t> default_pad = std::nullopt;

  // Tensor names: model.layers.N.<moe_block>.experts.E.<gate_proj>.weight. A checkpoint of the
  // original spelling has original_moe_block; "mlp" is accepted for every family.
  std::string_view original_moe_block = "mlp";
  std::string_view gate_proj = "gate_proj";
  std::string_view up_proj = "up_proj";
  std::string_view down_proj = "down_proj";
};

// Every family served. A new one is a new entry here and a test.
std::span<const Family> Families();
// By config.json's architecture, or null.
const Family* FindFamily(std::string_view architecture);

// Two spellings of expert tensors exist: one tensor per expert and matrix, or all experts of a
// layer fused into two.
struct ExpertLayout {
  std::string_view moe_block;  // "mlp" or "block_sparse_moe"
  bool fused = false;
};
// How `checkpoint` spells them, by the names it holds.
ExpertLayout FindExpertLayout(const Family& family,
                              const ModelConfig& config,
                              const Checkpoint& checkpoint);

// Names outside the layers.
inline constexpr char kEmbeddingTensor[] = "model.embed_tokens.weight";  // [vocab, hidden]
inline constexpr char kFinalNormTensor[] = "model.norm.weight";          // [hidden]
// [vocab, hidden]; with tied embeddings the head is the embedding, even if this is stored too.
inline constexpr char kHeadTensor[] = "lm_head.weight";

// The tensors of a gated MLP: gate and up [units, hidden], down [hidden, units].
struct MlpTensors {
  std::string gate;
  std::string up;
  std::string down;
};

// The tensors of one layer except its per-expert ones. A name is empty when the layer has no such
// tensor.
struct LayerTensors {
  std::string input_norm;                    // [hidden]
  std::string q_weight, k_weight, v_weight;  // [heads or kv_heads * head_dim, hidden]
  std::string q_bias, k_bias, v_bias;        // [heads or kv_heads * head_dim]
  std::string q_norm, k_norm;                // [head_dim] or [heads or kv_heads * head_dim]
  std::string o_weight;                      // [hidden, heads * head_dim]
  std::string o_bias;                        // [hidden]
  std::string post_attention_norm;           // [hidden]
  std::string gate;                          // [experts, hidden]
  std::string fused_gate_up;                 // [experts, 2 * units, hidden]: gate rows, then up
  std::string fused_down;                    // [experts, hidden, units]
  MlpTensors shared_expert;
  std::string shared_expert_gate;  // [1, hidden]
  MlpTensors dense;                // of a layer without experts
};
LayerTensors LayerTensorNames(const ModelConfig& config, const ExpertLayout& layout, int32_t layer);

// One expert's tensors in a layout that is not fused.
MlpTensors ExpertTensorNames(const Family& family,
                             const ExpertLayout& layout,
                             int32_t layer,
                             int32_t expert);

}  // namespace moesaic
