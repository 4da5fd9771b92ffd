#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "checkpoint/json.h"
#include "server/generation_request.h"

namespace moesaic {

// Applies a JSON object with vLLM's names for sampling parameters over what `request` already
// holds. With `text_numbers`, numbers and booleans may also be given as strings, as some load
// generators send them.
// InvalidArgument naming `what` and the field for an unknown name, a wrong type or a number out of
// its type's range; the ranges of meaning are checked by admission.
absl::Status ApplySamplingJson(const Json& object,
                               std::string_view what,
                               bool text_numbers,
                               GenerationRequest& request);
// The same from text, with text_numbers.
absl::Status ParseSamplingJson(std::string_view text,
                               std::string_view what,
                               GenerationRequest& request);

}  // namespace moesaic
