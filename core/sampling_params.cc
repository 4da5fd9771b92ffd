#include "core/sampling_params.h"

#include <cmath>

#include "base/str_cat.h"

namespace moesaic {
namespace {

absl::Status OutOfRange(const char* field, double value, const char* expected) {
  return absl::InvalidArgumentError(StrCat(field, ": got ", value, ", expected ", expected));
}

}  // namespace

absl::Status ValidateSamplingParams(const SamplingParams& params, const SamplingLimits& limits) {
  const auto within = [](float value, float low, float high) {
    return value >= low && value <= high;
  };
  if (params.n < 1 || params.n > limits.max_n) {
    return absl::InvalidArgumentError(
        StrCat("n: got ", params.n, ", expected 1 to ", limits.max_n));
  }
  if (!std::isfinite(params.temperature) || params.temperature < 0) {
    return OutOfRange("temperature", params.temperature, "a finite number >= 0");
  }
  if (params.top_k < 0) return OutOfRange("top_k", params.top_k, "0 (off) or more");
  if (!(params.top_p > 0) || params.top_p > 1) return OutOfRange("top_p", params.top_p, "(0, 1]");
  if (!within(params.min_p, 0, 1)) return OutOfRange("min_p", params.min_p, "[0, 1]");
  if (!std::isfinite(params.repetition_penalty) || params.repetition_penalty <= 0) {
    return OutOfRange("repetition_penalty", params.repetition_penalty, "a finite number > 0");
  }
  if (!within(params.presence_penalty, -2, 2)) {
    return OutOfRange("presence_penalty", params.presence_penalty, "[-2, 2]");
  }
  if (!within(params.frequency_penalty, -2, 2)) {
    return OutOfRange("frequency_penalty", params.frequency_penalty, "[-2, 2]");
  }
  if (params.max_tokens < 1) return OutOfRange("max_tokens", params.max_tokens, "1 or more");
  if (params.min_tokens < 0 || params.min_tokens > params.max_tokens) {
    return absl::InvalidArgumentError(StrCat("min_tokens: got ", params.min_tokens,
                                             ", expected 0 to max_tokens (", params.max_tokens,
                                             ")"));
  }
  for (const auto& [field, value] : {std::pair{"logprobs", params.logprobs},
                                     std::pair{"prompt_logprobs", params.prompt_logprobs}}) {
    if (value && (*value < 0 || *value > limits.max_logprobs)) {
      return absl::InvalidArgumentError(
          StrCat(field, ": got ", *value, ", expected 0 to ", limits.max_logprobs));
    }
  }
  if (params.stop.size() > static_cast<size_t>(limits.max_stop_strings)) {
    return absl::InvalidArgumentError(StrCat(
        "stop: got ", params.stop.size(), " strings, expected at most ", limits.max_stop_strings));
  }
  for (const std::string& stop : params.stop) {
    if (stop.empty() || stop.size() > static_cast<size_t>(limits.max_stop_string_bytes)) {
      return absl::InvalidArgumentError(StrCat("stop: got a string of ", stop.size(),
                                               " bytes, expected 1 to ",
                                               limits.max_stop_string_bytes));
    }
  }
  if (params.stop_token_ids.size() > static_cast<size_t>(limits.max_stop_token_ids)) {
    return absl::InvalidArgumentError(StrCat("stop_token_ids: got ", params.stop_token_ids.size(),
                                             " ids, expected at most ", limits.max_stop_token_ids));
  }
  for (int32_t token : params.stop_token_ids) {
    if (token < 0 || token >= limits.vocab_size) {
      return absl::InvalidArgumentError(
          StrCat("stop_token_ids: got ", token, ", expected 0 to ", limits.vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace moesaic
