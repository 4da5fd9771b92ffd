#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/aligned_buffer.h"
#include "base/stream.h"
#include "model/model_config.h"

namespace moesaic {

// Cosines and sines of the rotary embedding for every position served, in float32. Immutable after
// Create.
class RopeTable {
 public:
  RopeTable() = default;
  // What Create allocates.
  static int64_t Bytes(const ModelConfig& config, int32_t max_positions);
  static absl::StatusOr<RopeTable> Create(const ModelConfig& config,
                                          int32_t max_positions,
                                          Stream stream);

  const float* cosines() const { return cosines_.as<float>(); }  // [max_positions, rotary_dim / 2]
  const float* sines() const { return sines_.as<float>(); }

 private:
  AlignedBuffer cosines_;
  AlignedBuffer sines_;
};

}  // namespace moesaic
