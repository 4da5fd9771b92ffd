#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "tokenizer/tokenizer.h"

namespace moesaic {

// A tokenizer from the text of a Hugging Face tokenizer.json: added tokens, normalizer,
// pre-tokenizer, model, post-processor, decoder. `truncation` and `padding` are left out: they are
// the caller's affair. InvalidArgument naming the field for what is malformed or unsupported.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizerJson(std::string_view json);

}  // namespace moesaic
