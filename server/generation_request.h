#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "core/sampling_params.h"
#include "tokenizer/tokenizer.h"

namespace moesaic {

// What a client asked for, decoded from either protocol and not yet checked against the model.
struct GenerationRequest {
  std::string model;      // empty: the served one
  std::string client_id;  // empty: the server makes one
  std::variant<std::string, std::vector<int32_t>> prompt;
  EncodeOptions encode;
  bool detokenize = true;
  bool detokenize_required = false;  // the client asked for text in so many words
  SamplingParams params;
  // Otherwise the default gives way to a long prompt.
  bool max_tokens_given = false;
  absl::Time deadline = absl::InfiniteFuture();
};

}  // namespace moesaic
