#pragma once

#include <cstdint>
#include <span>

#include "core/sampling_params.h"
#include "engine/sequence.h"

namespace moesaic {

// Whether ApplyLogitsProcessors would change anything for a sequence with `output_tokens` so far.
bool NeedsLogitsProcessors(const SamplingParams& params, int32_t output_tokens);
bool NeedsTokenUses(const SamplingParams& params);

// Changes one row of logits in place, in vLLM's order and by its definitions: repetition penalty
// (divides a positive, multiplies a negative logit of every token of prompt or output), frequency
// penalty (times the count in the output), presence penalty (once if in the output), and stop ids
// masked before min_tokens. Results stay finite, but for the mask.
void ApplyLogitsProcessors(const SamplingParams& params,
                           std::span<const int32_t> eos_token_ids,
                           int32_t output_tokens,
                           const TokenUseMap& token_uses,
                           std::span<float> logits);

}  // namespace moesaic
