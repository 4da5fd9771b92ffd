#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/decoder.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace moesaic {

// What the tokenizers of both file kinds share: added tokens around a vocabulary, special tokens
// around a text, and decoding. A subclass fills the protected members while it loads.
class TokenizerBase : public Tokenizer {
 public:
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options) const final;
  std::unique_ptr<DecodeStream> NewDecodeStream(const DecodeOptions& options) const final;
  int32_t vocab_size() const final;
  bool IsSpecial(int32_t id) const final;
  std::optional<int32_t> TokenToId(std::string_view token) const final;
  std::string IdToToken(int32_t id) const final;

 protected:
  // The tokens of the model itself.
  virtual const Vocabulary& vocabulary() const = 0;
  virtual absl::Status Normalize(std::string* text) const = 0;
  // Appends the ids of normalised text without added tokens; not empty. `starts_request`: the text
  // begins where the request's does.
  virtual absl::Status Tokenize(std::string text,
                                bool starts_request,
                                std::vector<int32_t>* ids) const = 0;

  AddedTokens added_;
  PostProcessor post_processor_;
  std::vector<DecoderStep> decoder_;

 private:
  class Stream;
  bool Contains(int32_t id) const;
  std::string_view TokenOf(int32_t id) const;
};

}  // namespace moesaic
