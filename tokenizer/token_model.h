#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/json.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace moesaic {

// The `model` of tokenizer.json: pieces to ids. Immutable: any thread.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  // Appends the ids of every piece of `text`. InvalidArgument for a character that the vocabulary
  // lacks where the model has no unknown token either.
  virtual absl::Status Tokenize(const PreTokenizedText& text, std::vector<int32_t>* ids) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
};

// `json` is the model object; `what` names it in errors. InvalidArgument for what is malformed or
// unsupported.
absl::StatusOr<std::unique_ptr<TokenModel>> ParseBpeModel(const Json& json,
                                                          const std::string& what);
absl::StatusOr<std::unique_ptr<TokenModel>> ParseUnigramModel(const Json& json,
                                                              const std::string& what);

}  // namespace moesaic
