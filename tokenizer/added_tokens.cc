#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

absl::StatusOr<AddedToken> ParseToken(const Json& json, const std::string& what) {
  if (!json.is_object()) return absl::InvalidArgumentError(StrCat(what, " is not an object"));
  AddedToken token;
  MOESAIC_ASSIGN_OR_RETURN(token.content, JsonString(json, "content", what));
  MOESAIC_ASSIGN_OR_RETURN(const int64_t id, JsonInt(json, "id", what, 0, kMaxTokenId));
  token.id = static_cast<int32_t>(id);
  MOESAIC_ASSIGN_OR_RETURN(token.single_word, JsonBool(json, "single_word", what, false));
  MOESAIC_ASSIGN_OR_RETURN(token.lstrip, JsonBool(json, "lstrip", what, false));
  MOESAIC_ASSIGN_OR_RETURN(token.rstrip, JsonBool(json, "rstrip", what, false));
  MOESAIC_ASSIGN_OR_RETURN(token.special, JsonBool(json, "special", what, false));
  MOESAIC_ASSIGN_OR_RETURN(token.normalized, JsonBool(json, "normalized", what, !token.special));
  return token;
}

bool StandsAlone(std::string_view text, const Span& match) {
  if (match.begin > 0 && IsWordCharacter(LastCodePoint(text, match.begin))) return false;
  size_t next = match.end;
  return match.end == text.size() || !IsWordCharacter(NextCodePoint(text, &next));
}

// Moves `begin` to the left over white space, at most to `limit`.
size_t SkipSpaceBefore(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit) {
    const char32_t c = LastCodePoint(text, begin);
    if (!IsWhiteSpace(c)) break;
    begin -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
  }
  return begin;
}

size_t SkipSpaceBehind(std::string_view text, size_t end) {
  for (size_t next = end; next < text.size(); end = next) {
    if (!IsWhiteSpace(NextCodePoint(text, &next))) break;
  }
  return end;
}

}  // namespace

absl::StatusOr<AddedTokens> AddedTokens::Parse(const Json& json,
                                               const std::string& what,
                                               const Vocabulary& model,
                                               const Normalizer& normalizer) {
  AddedTokens added;
  if (json.is_null()) return added;
  if (!json.is_array()) return absl::InvalidArgumentError(StrCat(what, " is not a list"));
  std::vector<std::pair<std::string, int32_t>> raw;
  std::vector<std::pair<std::string, int32_t>> normalized;
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string where = StrCat(what, "[", i, "]");
    MOESAIC_ASSIGN_OR_RETURN(AddedToken token, ParseToken(json[i], where));
    if (token.content.empty()) continue;
    if (const std::optional<int32_t> model_id = model.Find(token.content)) {
      if (*model_id != token.id) {
        return absl::InvalidArgumentError(StrCat(where, ": \"", token.content, "\" has id ",
                                                 token.id, " here and ", *model_id,
                                                 " in the model's vocabulary"));
      }
    }
    if (added.index_by_content_.contains(token.content)) {
      return absl::InvalidArgumentError(StrCat(where, ": \"", token.content, "\" stands twice"));
    }
    const auto index = static_cast<int32_t>(added.tokens_.size());
    if (token.normalized) {
      std::string content = token.content;
      MOESAIC_RETURN_IF_ERROR(normalizer.Apply(&content));
      normalized.emplace_back(std::move(content), index);
    } else {
      raw.emplace_back(token.content, index);
    }
    if (token.special) added.special_.insert(token.content);
    added.size_ = std::max(added.size_, token.id + 1);
    added.index_by_id_[token.id] = added.tokens_.size();
    added.index_by_content_[token.content] = added.tokens_.size();
    added.tokens_.push_back(std::move(token));
  }
  added.raw_trie_ = ByteTrie(std::move(raw));
  added.normalized_trie_ = ByteTrie(std::move(normalized));
  return added;
}

std::vector<AddedTokens::Part> AddedTokens::SplitRaw(std::string_view text,
                                                     bool parse_special) const {
  return Split(text, raw_trie_, parse_special);
}

std::vector<AddedTokens::Part> AddedTokens::SplitNormalized(std::string_view text,
                                                            bool parse_special) const {
  return Split(text, normalized_trie_, parse_special);
}

std::vector<AddedTokens::Part> AddedTokens::Split(std::string_view text,
                                                  const ByteTrie& trie,
                                                  bool parse_special) const {
  std::vector<Part> parts;
  size_t done = 0;  // everything before is in `parts`
  for (size_t pos = 0; pos < text.size();) {
    int32_t index = ByteTrie::kNoValue;  // of the longest token that begins here
    Span match{pos, pos};
    int32_t node = ByteTrie::kRoot;
    for (size_t end = pos; end < text.size();) {
      node = trie.Step(node, static_cast<unsigned char>(text[end]));
      if (node == ByteTrie::kNoNode) break;
      ++end;
      if (trie.Value(node) != ByteTrie::kNoValue) {
        index = trie.Value(node);
        match.end = end;
      }
    }
    if (index == ByteTrie::kNoValue) {
      ++pos;
      continue;
    }
    pos = match.end;
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    if (token.special && !parse_special) continue;
    if (token.single_word && !StandsAlone(text, match)) continue;
    if (token.lstrip) match.begin = std::max(done, SkipSpaceBefore(text, match.begin, done));
    if (token.rstrip) match.end = SkipSpaceBehind(text, match.end);
    if (done < match.begin) parts.push_back({{done, match.begin}});
    // Nothing is left of a token of white space that the last one swallowed, if both strip.
    if (match.begin < match.end) parts.push_back({match, token.id});
    done = match.end;
  }
  if (done < text.size()) parts.push_back({{done, text.size()}});
  return parts;
}

bool AddedTokens::IsSpecial(std::string_view token) const {
  return special_.contains(absl::string_view(token.data(), token.size()));
}

const AddedToken* AddedTokens::Find(int32_t id) const {
  const auto it = index_by_id_.find(id);
  return it == index_by_id_.end() ? nullptr : &tokens_[it->second];
}

std::optional<int32_t> AddedTokens::FindId(std::string_view content) const {
  const auto it = index_by_content_.find(absl::string_view(content.data(), content.size()));
  if (it == index_by_content_.end()) return std::nullopt;
  return tokens_[it->second].id;
}

}  // namespace moesaic
