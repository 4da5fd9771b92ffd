#include "tokenizer/precompiled_charsmap.h"

#include <cstring>
#include <utility>

#include "base/str_cat.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

// Fields of a unit of the double array ("darts-clone").
uint32_t Label(uint32_t unit) { return unit & (1u << 31 | 0xFFu); }
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Value(uint32_t unit) { return unit & ((1u << 31) - 1); }
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

// Longer grapheme clusters are looked up character by character only.
constexpr size_t kMaxClusterBytes = 6;

}  // namespace

absl::StatusOr<PrecompiledCharsmap> PrecompiledCharsmap::Parse(std::string_view bytes,
                                                               std::string_view what) {
  PrecompiledCharsmap map;
  if (bytes.empty()) return map;
  uint32_t trie_bytes = 0;
  if (bytes.size() >= sizeof(trie_bytes))
    std::memcpy(&trie_bytes, bytes.data(), sizeof(trie_bytes));
  if (trie_bytes == 0 || trie_bytes % sizeof(uint32_t) != 0 ||
      trie_bytes > bytes.size() - sizeof(trie_bytes)) {
    return absl::InvalidArgumentError(StrCat(what, ": precompiled_charsmap of ", bytes.size(),
                                             " bytes claims a trie of ", trie_bytes));
  }
  map.units_.resize(trie_bytes / sizeof(uint32_t));
  std::memcpy(map.units_.data(), bytes.data() + sizeof(trie_bytes), trie_bytes);
  map.replacements_ = bytes.substr(sizeof(trie_bytes) + trie_bytes);
  if (FindInvalidUtf8(map.replacements_).has_value()) {
    return absl::InvalidArgumentError(
        StrCat(what, ": precompiled_charsmap has a replacement that is not UTF-8"));
  }
  return map;
}

std::optional<std::string_view> PrecompiledCharsmap::Replacement(std::string_view key) const {
  uint32_t node = Offset(units_[0]);
  for (const char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || Label(units_[node]) != byte) return std::nullopt;
    const bool has_leaf = HasLeaf(units_[node]);
    node ^= Offset(units_[node]);
    if (!has_leaf) continue;
    if (node >= units_.size()) return std::nullopt;
    const uint32_t begin = Value(units_[node]);
    if (begin >= replacements_.size()) return std::nullopt;
    const size_t end = replacements_.find('\0', begin);
    const std::string_view replacement =
        std::string_view(replacements_).substr(begin, end == std::string::npos ? end : end - begin);
    // A crafted file may point inside a character.
    if (FindInvalidUtf8(replacement).has_value()) return std::nullopt;
    return replacement;
  }
  return std::nullopt;
}

void PrecompiledCharsmap::Apply(std::string* text) const {
  if (units_.empty()) return;
  std::string mapped;
  mapped.reserve(text->size());
  const std::string_view view = *text;
  for (size_t begin = 0; begin < view.size();) {
    const size_t end = GraphemeEnd(view, begin);
    const std::string_view cluster = view.substr(begin, end - begin);
    begin = end;
    if (cluster.size() < kMaxClusterBytes) {
      if (const auto replacement = Replacement(cluster)) {
        mapped += *replacement;
        continue;
      }
    }
    for (size_t pos = 0; pos < cluster.size();) {
      const size_t character = pos;
      NextCodePoint(cluster, &pos);
      const std::string_view bytes = cluster.substr(character, pos - character);
      mapped += Replacement(bytes).value_or(bytes);
    }
  }
  *text = std::move(mapped);
}

}  // namespace moesaic
