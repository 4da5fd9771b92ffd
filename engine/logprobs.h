#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/text_sink.h"
#include "model/model.h"

namespace moesaic {

// Fills output.chosen and output.top, the `top_n` most probable tokens, from one row of the model's
// own logits: log-softmax in float32, before temperature and penalties. Equal logits rank by
// ascending id.
void ComputeLogprobs(std::span<const float> logits,
                     int32_t top_n,
                     const kernels::KernelTable& kernels,
                     TokenOutput& output);

}  // namespace moesaic
