#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/dtype.h"
#include "kernels/expert_ffn.h"
#include "kernels/qkv.h"

namespace moesaic {

// Shape of a served network, the same for every family: config.json read through the family's
// description.
struct ModelConfig {
  std::string architecture;  // "Qwen3MoeForCausalLM"
  DType checkpoint_dtype = DType::kFloat32;
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t rotary_dim = 0;
  bool qkv_bias = false;
  bool output_bias = false;
  float clip_qkv = 0.0f;
  kernels::QkNorm qk_norm = kernels::QkNorm::kNone;
  float norm_eps = 0.0f;
  bool tie_embeddings = false;
  int32_t max_positions = 0;
  std::vector<int32_t> sliding_window;  // [num_layers], 0: full attention

  // Experts. A layer that is dense in an otherwise sparse model is one expert that every row
  // visits.
  kernels::Activation activation = kernels::Activation::kSilu;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int32_t expert_units = 0;  // intermediate size of an expert
  bool renormalize_gate = false;
  int32_t shared_expert_units = 0;    // 0: no shared expert
  std::vector<bool> layer_is_sparse;  // [num_layers]
  int32_t dense_units = 0;            // intermediate size of a dense layer's MLP

  // Rotary embedding: inverse frequencies [rotary_dim / 2] and the factor on cos and sin.
  std::vector<float> rope_inverse_frequencies;
  float rope_attention_factor = 1.0f;

  std::vector<int32_t> eos_token_ids;  // generation_config.json's, else config.json's
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> pad_token_id;
};

// Reads config.json, and generation_config.json where there is one, of `folder`. InvalidArgument
// naming the field for an unknown architecture, a missing field or a size out of range;
// Unimplemented for what the format knows and this server does not.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::filesystem::path& folder);

// The same from the files' text.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json = "{}");

}  // namespace moesaic
