#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/json.h"
#include "tokenizer/regex.h"

namespace moesaic {

// A normalised text on its way to the model, and the pieces of it that the model sees one by one.
struct PreTokenizedText {
  std::string text;
  std::vector<Span> pieces;     // in order, never empty, not overlapping; may leave gaps
  bool starts_request = false;  // the text begins where the request's does

  std::string_view Piece(size_t i) const {
    return std::string_view(text).substr(pieces[i].begin, pieces[i].end - pieces[i].begin);
  }
};

// One pre-tokenizer of tokenizer.json: refines the pieces, and may rewrite their characters.
// Immutable: any thread.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // ResourceExhausted when a regular expression gives up.
  virtual absl::Status Apply(PreTokenizedText* text) const = 0;
};

// From the `pre_tokenizer` of tokenizer.json; null JSON leaves the text whole. `what` names `json`
// in errors. InvalidArgument for what is malformed or unsupported.
absl::StatusOr<std::unique_ptr<PreTokenizer>> ParsePreTokenizer(const Json& json,
                                                                const std::string& what);

}  // namespace moesaic
