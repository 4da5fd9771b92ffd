#pragma once

#include <vector>

#include "checkpoint/json.h"

namespace moesaic {

// Small networks of each family for LoadFormat::kDummy; the vocabulary is 130.
struct Network {
  const char* name;
  Json config;
};

// Together: every kind of layer, QK-norm, window, tying and renormalisation.
inline std::vector<Network> Networks() {
  const Json shape = {{"vocab_size", 130},        {"hidden_size", 96},
                      {"num_hidden_layers", 3},   {"num_attention_heads", 4},
                      {"num_key_value_heads", 2}, {"max_position_embeddings", 1024},
                      {"rope_theta", 10000.0},    {"torch_dtype", "float32"}};
  const auto network = [&](const char* name, const Json& fields) {
    Json config = shape;
    config.update(fields);
    return Network{name, config};
  };
  return {network("Qwen3", {{"architectures", {"Qwen3MoeForCausalLM"}},
                            {"model_type", "qwen3_moe"},
                            {"head_dim", 32},
                            {"num_experts", 8},
                            {"num_experts_per_tok", 3},
                            {"moe_intermediate_size", 160},
                            {"norm_topk_prob", true},
                            {"tie_word_embeddings", true}}),
          network("Qwen2", {{"architectures", {"Qwen2MoeForCausalLM"}},
                            {"model_type", "qwen2_moe"},
                            {"num_experts", 6},
                            {"num_experts_per_tok", 2},
                            {"moe_intermediate_size", 72},
                            {"shared_expert_intermediate_size", 200},
                            {"intermediate_size", 100},
                            {"mlp_only_layers", {1}},
                            {"tie_word_embeddings", false}}),
          network("Mixtral", {{"architectures", {"MixtralForCausalLM"}},
                              {"model_type", "mixtral"},
                              {"num_local_experts", 4},
                              {"num_experts_per_tok", 2},
                              {"intermediate_size", 136},
                              {"sliding_window", 40},
                              {"tie_word_embeddings", false}}),
          network("Olmoe", {{"architectures", {"OlmoeForCausalLM"}},
                            {"model_type", "olmoe"},
                            {"num_key_value_heads", 4},
                            {"num_experts", 8},
                            {"num_experts_per_tok", 4},
                            {"intermediate_size", 64},
                            {"clip_qkv", 1.5},
                            {"tie_word_embeddings", false}})};
}

}  // namespace moesaic
