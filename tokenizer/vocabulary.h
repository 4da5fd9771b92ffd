#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace moesaic {

// Highest id a tokenizer file may give a token, so that a lying file cannot exhaust memory.
inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;

// Tokens and their ids, both ways. Ids may have gaps. Immutable once filled: any thread.
class Vocabulary {
 public:
  // InvalidArgument when `id` is negative or above kMaxTokenId. The last of two tokens with one id
  // is the id's token; both keep the id.
  absl::Status Add(std::string_view token, int64_t id);

  std::optional<int32_t> Find(std::string_view token) const;
  bool Contains(int32_t id) const;
  std::string_view TokenOf(int32_t id) const;  // empty for an unknown id

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }  // highest id + 1
  size_t token_count() const { return ids_.size(); }

  // The ids of "<0x00>" to "<0xFF>", as byte fallback spells them; -1 for a missing one.
  std::vector<int32_t> ByteTokens() const;

 private:
  absl::flat_hash_map<std::string, int32_t> ids_;
  std::vector<std::optional<std::string>> tokens_;  // by id
};

// The value of a byte token such as "<0x0A>"; none for any other token.
std::optional<uint8_t> ByteOfToken(std::string_view token);

}  // namespace moesaic
