#pragma once

#include <cstdint>

namespace moesaic::kernels {

// Reductions over one row of logits, called by the sampler for each sequence. Deterministic: the
// order of each sum depends on `size` alone.

struct MaxResult {
  float value = 0.0f;
  int32_t index = 0;  // the lowest index among equal maxima
};
using ArgMaxFn = MaxResult (*)(const float* logits, int64_t size);

// log(sum(exp(logits[i]))), shifted by the maximum.
using LogSumExpFn = float (*)(const float* logits, int64_t size, float max_value);

// probabilities[i] = exp((logits[i] - max_value) / temperature); returns their sum.
using ExpScaledFn = float (*)(const float* logits,
                              int64_t size,
                              float max_value,
                              float inverse_temperature,
                              float* probabilities);

}  // namespace moesaic::kernels
