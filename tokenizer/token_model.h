#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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

struct BpeMerge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t merged = 0;
  int32_t rank = 0;  // the lowest is merged first; of equal ones, the leftmost
};

struct BpeParts {
  Vocabulary vocabulary;
  std::vector<BpeMerge> merges;
  std::optional<int32_t> unknown_id;  // none: unknown characters are dropped
  bool byte_fallback = false;         // unknown characters become "<0xE2>"... where these exist
  bool fuse_unknown = false;          // a run of unknown characters is one token
  bool ignore_merges = false;         // a piece that is a token is that token
};
std::unique_ptr<TokenModel> MakeBpeModel(BpeParts parts);

struct UnigramParts {
  Vocabulary vocabulary;
  std::vector<std::optional<double>> scores;  // by id; none: never found in a text
  std::optional<int32_t> unknown_id;
  bool byte_fallback = false;
};
std::unique_ptr<TokenModel> MakeUnigramModel(UnigramParts parts);

// `json` is the model object; `what` names it in errors. InvalidArgument for what is malformed or
// unsupported.
absl::StatusOr<std::unique_ptr<TokenModel>> ParseBpeModel(const Json& json,
                                                          const std::string& what);
absl::StatusOr<std::unique_ptr<TokenModel>> ParseUnigramModel(const Json& json,
                                                              const std::string& what);

}  // namespace moesaic
