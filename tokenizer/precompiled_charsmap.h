#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace moesaic {

// SentencePiece's normalisation rules, compiled to a double-array trie, as T5's tokenizers carry
// them. Immutable: any thread.
class PrecompiledCharsmap {
 public:
  // `bytes` as they stand in a SentencePiece model, and in base64 in tokenizer.json; empty maps
  // everything to itself. InvalidArgument beginning with `what`.
  static absl::StatusOr<PrecompiledCharsmap> Parse(std::string_view bytes, std::string_view what);

  void Apply(std::string* text) const;

 private:
  // What the shortest rule that `key` begins with puts in place of all of `key`.
  std::optional<std::string_view> Replacement(std::string_view key) const;

  std::vector<uint32_t> units_;
  std::string replacements_;  // each ended by NUL
};

}  // namespace moesaic
