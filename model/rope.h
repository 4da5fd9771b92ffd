#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/json.h"

namespace moesaic {

// Angle of dimension pair i at position p is p * inverse_frequencies[i]; cos and sin are multiplied
// by attention_factor.
struct RopeFrequencies {
  std::vector<float> inverse_frequencies;  // [head_dim / 2]
  float attention_factor = 1.0f;
};

// Reads the rotary embedding of a config.json in either spelling: rope_parameters, or rope_theta
// and rope_scaling. Types default, linear, llama3 and yarn, computed as transformers computes them.
// Unimplemented naming the field for other types, InvalidArgument for values that make no sense.
absl::StatusOr<RopeFrequencies> ReadRope(const Json& config,
                                         double default_theta,
                                         int32_t head_dim,
                                         int32_t max_positions);

}  // namespace moesaic
