#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace moesaic {

// How one request's tokens are chosen. Names and defaults are vLLM's; a folder's
// generation_config.json may replace the defaults of the fields that a request leaves out.
struct SamplingParams {
  int32_t n = 1;                    // sequences sampled from one prompt
  float temperature = 1.0f;         // 0 is greedy
  int32_t top_k = 0;                // 0 (or -1 at the edge) keeps every token
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1], relative to the most probable token
  float repetition_penalty = 1.0f;  // > 0; over prompt and output
  float presence_penalty = 0.0f;    // [-2, 2]; over output
  float frequency_penalty = 0.0f;   // [-2, 2]; over output
  std::optional<uint64_t> seed;     // unset: drawn at admission
  std::vector<std::string> stop;    // matched in the output text by the sequence's TextSink
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;  // in the output text
  int32_t max_tokens = 16;
  int32_t min_tokens = 0;  // no stop id is sampled before this many
  std::optional<int32_t>
      logprobs;  // top-n beside each new token; 0 gives the sampled token's alone
  std::optional<int32_t> prompt_logprobs;  // the same for each prompt token but the first
};

// Caps on what one request may ask for.
struct SamplingLimits {
  int32_t max_n = 16;
  int32_t max_logprobs = 20;
  int32_t max_stop_strings = 16;
  int32_t max_stop_string_bytes = 1024;
  int32_t max_stop_token_ids = 64;
  int32_t vocab_size = 0;
};

// OK, or InvalidArgument naming the field, its value and what was expected.
absl::Status ValidateSamplingParams(const SamplingParams& params, const SamplingLimits& limits);

}  // namespace moesaic
