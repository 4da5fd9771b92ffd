#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/json.h"

namespace moesaic {

// The `post_processor` of tokenizer.json, as far as ids go: what is put around a single text.
struct PostProcessor {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

// null JSON adds nothing. `what` names `json` in errors. InvalidArgument for what is malformed or
// unsupported.
absl::StatusOr<PostProcessor> ParsePostProcessor(const Json& json, const std::string& what);

}  // namespace moesaic
