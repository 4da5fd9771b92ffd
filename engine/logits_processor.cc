#include "engine/logits_processor.h"

#include <algorithm>
#include <limits>

namespace moesaic {

bool NeedsTokenUses(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f;
}

bool NeedsLogitsProcessors(const SamplingParams& params, int32_t output_tokens) {
  return NeedsTokenUses(params) || output_tokens < params.min_tokens;
}

void ApplyLogitsProcessors(const SamplingParams& params,
                           std::span<const int32_t> eos_token_ids,
                           int32_t output_tokens,
                           const TokenUseMap& token_uses,
                           std::span<float> logits) {
  constexpr float kMax = std::numeric_limits<float>::max();
  for (const auto& [token, use] : token_uses) {
    float& logit = logits[token];
    if (logit > 0) {
      logit /= params.repetition_penalty;
    } else {
      logit *= params.repetition_penalty;
    }
    logit -= params.frequency_penalty * static_cast<float>(use.output_count);
    if (use.output_count > 0) logit -= params.presence_penalty;
    logit = std::clamp(logit, -kMax, kMax);
  }
  if (output_tokens >= params.min_tokens) return;
  const auto mask = [&](std::span<const int32_t> tokens) {
    for (int32_t token : tokens) logits[token] = -std::numeric_limits<float>::infinity();
  };
  mask(params.stop_token_ids);
  if (!params.ignore_eos) mask(eos_token_ids);
}

}  // namespace moesaic
