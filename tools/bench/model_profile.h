#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace moesaic::bench {

// What a replay needs to know of a real model: bytes and operations of a layer, from the shapes of
// its public configuration (benchmarks/models/*.json).
struct ModelProfile {
  std::string name;
  int32_t num_layers = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  int64_t hidden = 0;
  int64_t expert_units = 0;  // intermediate size of one expert
  int64_t attention_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t bytes_per_weight = 2;

  int64_t expert_weights() const { return 3 * hidden * expert_units; }
  // Attention and gate; read once a layer and step.
  int64_t dense_weights() const {
    return 2 * hidden * (attention_heads + kv_heads) * head_dim + hidden * num_experts;
  }
};

// InvalidArgument naming the field that is missing or out of range.
absl::StatusOr<ModelProfile> ReadModelProfile(const std::filesystem::path& path);

}  // namespace moesaic::bench
