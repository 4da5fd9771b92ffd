#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/json.h"

namespace moesaic {

// One normalizer of tokenizer.json. Immutable: any thread.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // `text` is UTF-8, before and after. ResourceExhausted when a regular expression gives up.
  virtual absl::Status Apply(std::string* text) const = 0;
};

// From the `normalizer` of tokenizer.json; null JSON leaves texts as they are. `what` names `json`
// in errors. InvalidArgument for what is malformed or unsupported.
absl::StatusOr<std::unique_ptr<Normalizer>> ParseNormalizer(const Json& json,
                                                            const std::string& what);

}  // namespace moesaic
