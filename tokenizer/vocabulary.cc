#include "tokenizer/vocabulary.h"

#include <cctype>
#include <cstdio>

#include "base/str_cat.h"

namespace moesaic {

absl::Status Vocabulary::Add(std::string_view token, int64_t id) {
  if (id < 0 || id > kMaxTokenId) {
    return absl::InvalidArgumentError(
        StrCat("token \"", token, "\" has id ", id, "; ids are 0 to ", kMaxTokenId));
  }
  ids_[std::string(token)] = static_cast<int32_t>(id);
  if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(static_cast<size_t>(id) + 1);
  tokens_[static_cast<size_t>(id)] = std::string(token);
  return absl::OkStatus();
}

std::optional<int32_t> Vocabulary::Find(std::string_view token) const {
  const auto it = ids_.find(absl::string_view(token.data(), token.size()));
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

bool Vocabulary::Contains(int32_t id) const {
  return id >= 0 && id < size() && tokens_[static_cast<size_t>(id)].has_value();
}

std::string_view Vocabulary::TokenOf(int32_t id) const {
  return Contains(id) ? std::string_view(*tokens_[static_cast<size_t>(id)]) : std::string_view();
}

std::vector<int32_t> Vocabulary::ByteTokens() const {
  std::vector<int32_t> ids(256);
  for (int byte = 0; byte < 256; ++byte) {
    char token[8];
    std::snprintf(token, sizeof(token), "<0x%02X>", static_cast<unsigned>(byte));
    ids[static_cast<size_t>(byte)] = Find(token).value_or(-1);
  }
  return ids;
}

std::optional<uint8_t> ByteOfToken(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    if (!std::isxdigit(static_cast<unsigned char>(c))) return std::nullopt;
    value = value * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return static_cast<uint8_t>(value);
}

}  // namespace moesaic
