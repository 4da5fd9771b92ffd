#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/json.h"
#include "tokenizer/byte_trie.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/regex.h"
#include "tokenizer/vocabulary.h"

namespace moesaic {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // swallows the white space before it
  bool rstrip = false;       // swallows the white space behind it
  bool normalized = false;   // looked for in the normalised text
  bool special = false;
};

// The `added_tokens` of tokenizer.json: tokens found in the text before the model sees it.
// Immutable: any thread.
class AddedTokens {
 public:
  // A part of a text: one added token, or what lies between.
  struct Part {
    Span span;
    int32_t id = -1;  // -1: text
  };

  // `model` and `normalizer` are those of the same file. InvalidArgument when malformed.
  static absl::StatusOr<AddedTokens> Parse(const Json& json,
                                           const std::string& what,
                                           const Vocabulary& model,
                                           const Normalizer& normalizer);

  // Splits raw text at the tokens that are looked for there, and normalised text at the others.
  // Without `parse_special` special tokens stay text.
  std::vector<Part> SplitRaw(std::string_view text, bool parse_special) const;
  std::vector<Part> SplitNormalized(std::string_view text, bool parse_special) const;

  bool IsSpecial(std::string_view token) const;
  // The token with this id; null when none was added.
  const AddedToken* Find(int32_t id) const;
  std::optional<int32_t> FindId(std::string_view content) const;
  int32_t size() const { return size_; }  // highest id + 1

 private:
  std::vector<Part> Split(std::string_view text, const ByteTrie& trie, bool parse_special) const;

  std::vector<AddedToken> tokens_;
  absl::flat_hash_map<int32_t, size_t> index_by_id_;
  absl::flat_hash_map<std::string, size_t> index_by_content_;
  absl::flat_hash_set<std::string> special_;
  ByteTrie raw_trie_;  // values are indices into tokens_
  ByteTrie normalized_trie_;
  int32_t size_ = 0;
};

}  // namespace moesaic
