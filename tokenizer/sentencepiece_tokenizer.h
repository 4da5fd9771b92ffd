#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "checkpoint/json.h"
#include "tokenizer/tokenizer.h"

namespace moesaic {

// A tokenizer from the bytes of a SentencePiece tokenizer.model, as Hugging Face's LlamaTokenizer
// uses it. `config` is tokenizer_config.json, or null JSON: add_bos_token (default: whether the
// model has a BOS), add_eos_token (false), add_prefix_space (true: the model decides), legacy
// (false: only the beginning of the text gets the prefix, not what follows a special token) and
// added_tokens_decoder. InvalidArgument for a malformed model or field.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(std::string_view model,
                                                                      const Json& config);

}  // namespace moesaic
