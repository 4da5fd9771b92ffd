#include "server/sampling_proto.h"

#include <utility>

namespace moesaic {
namespace {

void ApplySampling(const v1::SamplingParams& message, GenerationRequest& request) {
  SamplingParams& params = request.params;
  if (message.has_n()) params.n = message.n();
  if (message.has_temperature()) params.temperature = message.temperature();
  if (message.has_top_k()) params.top_k = message.top_k() == -1 ? 0 : message.top_k();
  if (message.has_top_p()) params.top_p = message.top_p();
  if (message.has_min_p()) params.min_p = message.min_p();
  if (message.has_repetition_penalty()) params.repetition_penalty = message.repetition_penalty();
  if (message.has_presence_penalty()) params.presence_penalty = message.presence_penalty();
  if (message.has_frequency_penalty()) params.frequency_penalty = message.frequency_penalty();
  if (message.has_seed()) params.seed = message.seed();
  params.stop.assign(message.stop().begin(), message.stop().end());
  params.stop_token_ids.assign(message.stop_token_ids().begin(), message.stop_token_ids().end());
  if (message.has_ignore_eos()) params.ignore_eos = message.ignore_eos();
  if (message.has_include_stop_str_in_output()) {
    params.include_stop_str_in_output = message.include_stop_str_in_output();
  }
  if (message.has_skip_special_tokens()) params.skip_special_tokens = message.skip_special_tokens();
  if (message.has_max_tokens()) {
    params.max_tokens = message.max_tokens();
    request.max_tokens_given = true;
  }
  if (message.has_min_tokens()) params.min_tokens = message.min_tokens();
  if (message.has_logprobs()) params.logprobs = message.logprobs();
  if (message.has_prompt_logprobs()) params.prompt_logprobs = message.prompt_logprobs();
}

}  // namespace

absl::StatusOr<GenerationRequest> DecodeGenerateRequest(const v1::GenerateRequest& message,
                                                        const SamplingParams& defaults) {
  GenerationRequest request;
  request.model = message.model();
  request.client_id = message.request_id();
  request.params = defaults;
  switch (message.prompt_case()) {
    case v1::GenerateRequest::kText:
      request.prompt = message.text();
      break;
    case v1::GenerateRequest::kTokenIds:
      request.prompt =
          std::vector<int32_t>(message.token_ids().ids().begin(), message.token_ids().ids().end());
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      // Admission knows the limits to name. Text would get the tokenizer's special tokens.
      request.prompt = std::vector<int32_t>();
      break;
  }
  if (message.has_add_special_tokens()) {
    request.encode.add_special_tokens = message.add_special_tokens();
  }
  if (message.has_parse_special_tokens()) {
    request.encode.parse_special_tokens = message.parse_special_tokens();
  }
  if (message.has_detokenize()) {
    request.detokenize = message.detokenize();
    request.detokenize_required = message.detokenize();
  }
  ApplySampling(message.sampling(), request);
  return request;
}

v1::SamplingParams EncodeSamplingParams(const SamplingParams& params) {
  v1::SamplingParams message;
  message.set_n(params.n);
  message.set_temperature(params.temperature);
  message.set_top_k(params.top_k);
  message.set_top_p(params.top_p);
  message.set_min_p(params.min_p);
  message.set_repetition_penalty(params.repetition_penalty);
  message.set_presence_penalty(params.presence_penalty);
  message.set_frequency_penalty(params.frequency_penalty);
  message.set_ignore_eos(params.ignore_eos);
  message.set_include_stop_str_in_output(params.include_stop_str_in_output);
  message.set_skip_special_tokens(params.skip_special_tokens);
  message.set_max_tokens(params.max_tokens);
  message.set_min_tokens(params.min_tokens);
  return message;
}

}  // namespace moesaic
