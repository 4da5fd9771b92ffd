#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/token_model.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

constexpr char32_t kDirectCharacters = 0x400;  // looked up in an array: all of the byte level's

struct Merge {
  int32_t rank;
  int32_t id;  // of the two together
};

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// One piece while it is merged: symbols in a doubly linked list over an array.
struct Symbol {
  int32_t id;
  int32_t previous;  // index; -1 at the start
  int32_t next;      // index; -1 at the end
};
constexpr int32_t kMergedAway = -1;  // `id` of a symbol that its left neighbour swallowed

struct Candidate {
  int32_t rank;
  int32_t position;  // of the left symbol
  int32_t id;        // what the pair becomes; tells a stale candidate
};

// The heap's top is the lowest rank, then the leftmost.
bool After(const Candidate& a, const Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

struct Workspace {
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

// Byte-pair encoding: repeatedly joins the neighbours whose merge was learnt first. A heap of
// candidates keeps that at n log n for a piece of any length.
class BpeModel final : public TokenModel {
 public:
  explicit BpeModel(BpeParts parts)
      : vocabulary_(std::move(parts.vocabulary)),
        byte_ids_(parts.byte_fallback ? vocabulary_.ByteTokens() : std::vector<int32_t>()),
        unknown_id_(parts.unknown_id),
        fuse_unknown_(parts.fuse_unknown),
        ignore_merges_(parts.ignore_merges) {
    merges_.reserve(parts.merges.size());
    for (const BpeMerge& merge : parts.merges) {
      merges_[PairKey(merge.left, merge.right)] = {merge.rank, merge.merged};
    }
    direct_ids_.fill(-1);
    for (int32_t id = 0; id < vocabulary_.size(); ++id) {
      const std::string_view token = vocabulary_.TokenOf(id);
      if (token.empty()) continue;
      size_t end = 0;
      const char32_t c = NextCodePoint(token, &end);
      if (end != token.size()) continue;
      const int32_t character_id = *vocabulary_.Find(token);
      if (c < kDirectCharacters) direct_ids_[c] = character_id;
      character_ids_[c] = character_id;
    }
  }

  absl::Status Tokenize(const PreTokenizedText& text, std::vector<int32_t>* ids) const override {
    Workspace workspace;
    for (size_t i = 0; i < text.pieces.size(); ++i) {
      const std::string_view piece = text.Piece(i);
      if (ignore_merges_) {
        if (const std::optional<int32_t> id = vocabulary_.Find(piece)) {
          ids->push_back(*id);
          continue;
        }
      }
      if (piece.size() > std::numeric_limits<int32_t>::max()) {
        return absl::InvalidArgumentError("a piece of 2 GiB or more cannot be tokenized");
      }
      MOESAIC_RETURN_IF_ERROR(SplitIntoSymbols(piece, &workspace.symbols));
      MergeSymbols(&workspace);
      for (const Symbol& symbol : workspace.symbols) {
        if (symbol.id != kMergedAway) ids->push_back(symbol.id);
      }
    }
    return absl::OkStatus();
  }

  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  std::optional<int32_t> FindCharacter(char32_t c) const {
    if (c < kDirectCharacters) {
      return direct_ids_[c] < 0 ? std::nullopt : std::optional<int32_t>(direct_ids_[c]);
    }
    const auto it = character_ids_.find(c);
    if (it == character_ids_.end()) return std::nullopt;
    return it->second;
  }

  // Whether every byte of an unknown character has a token; then these are appended.
  bool AppendByteTokens(std::string_view character, std::vector<Symbol>* symbols) const {
    if (byte_ids_.empty()) return false;
    for (const char c : character) {
      if (byte_ids_[static_cast<unsigned char>(c)] < 0) return false;
    }
    for (const char c : character) {
      symbols->push_back({byte_ids_[static_cast<unsigned char>(c)], 0, 0});
    }
    return true;
  }

  absl::Status SplitIntoSymbols(std::string_view piece, std::vector<Symbol>* symbols) const {
    symbols->clear();
    bool unknown_pending = false;
    const auto flush_unknown = [&] {
      if (unknown_pending) symbols->push_back({*unknown_id_, 0, 0});
      unknown_pending = false;
    };
    for (size_t pos = 0; pos < piece.size();) {
      const size_t begin = pos;
      const char32_t c = NextCodePoint(piece, &pos);
      if (const std::optional<int32_t> id = FindCharacter(c)) {
        flush_unknown();
        symbols->push_back({*id, 0, 0});
        continue;
      }
      // As in Hugging Face's, byte tokens do not end a run of unknown characters.
      if (AppendByteTokens(piece.substr(begin, pos - begin), symbols)) continue;
      if (!unknown_id_) continue;  // nothing to put in its place: the character is dropped
      if (!fuse_unknown_) flush_unknown();
      unknown_pending = true;
    }
    flush_unknown();
    for (size_t i = 0; i < symbols->size(); ++i) {
      (*symbols)[i].previous = static_cast<int32_t>(i) - 1;
      (*symbols)[i].next = i + 1 < symbols->size() ? static_cast<int32_t>(i) + 1 : -1;
    }
    return absl::OkStatus();
  }

  const Merge* FindMerge(int32_t left, int32_t right) const {
    const auto it = merges_.find(PairKey(left, right));
    return it == merges_.end() ? nullptr : &it->second;
  }

  void MergeSymbols(Workspace* workspace) const {
    std::vector<Symbol>& symbols = workspace->symbols;
    std::vector<Candidate>& heap = workspace->heap;
    heap.clear();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      if (const Merge* merge = FindMerge(symbols[i].id, symbols[i + 1].id)) {
        heap.push_back({merge->rank, static_cast<int32_t>(i), merge->id});
      }
    }
    std::make_heap(heap.begin(), heap.end(), After);
    const auto push = [&](int32_t left) {
      const int32_t right = symbols[static_cast<size_t>(left)].next;
      const Merge* merge =
          FindMerge(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
      if (merge == nullptr) return;
      heap.push_back({merge->rank, left, merge->id});
      std::push_heap(heap.begin(), heap.end(), After);
    };
    while (!heap.empty()) {
      const Candidate top = heap.front();
      std::pop_heap(heap.begin(), heap.end(), After);
      heap.pop_back();
      Symbol& left = symbols[static_cast<size_t>(top.position)];
      if (left.id == kMergedAway || left.next < 0) continue;
      Symbol& right = symbols[static_cast<size_t>(left.next)];
      const Merge* merge = FindMerge(left.id, right.id);
      if (merge == nullptr || merge->id != top.id) continue;  // one of the two has changed
      left.id = top.id;
      right.id = kMergedAway;
      left.next = right.next;
      if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.position;
      if (left.previous >= 0) push(left.previous);
      if (left.next >= 0) push(top.position);
    }
  }

  const Vocabulary vocabulary_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
  std::array<int32_t, kDirectCharacters> direct_ids_;
  absl::flat_hash_map<char32_t, int32_t> character_ids_;
  const std::vector<int32_t> byte_ids_;  // empty: no byte fallback
  const std::optional<int32_t> unknown_id_;
  const bool fuse_unknown_;
  const bool ignore_merges_;
};

absl::Status ParseOptions(const Json& json, const std::string& what, BpeParts* parts) {
  MOESAIC_ASSIGN_OR_RETURN(const double dropout, JsonNumber(json, "dropout", what, 0.0));
  if (dropout != 0.0) {
    return absl::InvalidArgumentError(
        StrCat(what, ".dropout is ", dropout, ": random merges are for training only"));
  }
  for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    MOESAIC_ASSIGN_OR_RETURN(const std::string affix, JsonString(json, field, what, ""));
    if (!affix.empty()) {
      return absl::InvalidArgumentError(
          StrCat(what, ".", field, " \"", affix, "\" is not supported"));
    }
  }
  MOESAIC_ASSIGN_OR_RETURN(parts->ignore_merges, JsonBool(json, "ignore_merges", what, false));
  MOESAIC_ASSIGN_OR_RETURN(parts->fuse_unknown, JsonBool(json, "fuse_unk", what, false));
  return absl::OkStatus();
}

absl::Status ParseVocabulary(const Json& json, const std::string& what, BpeParts* parts) {
  const Json* vocabulary = JsonFind(json, "vocab");
  if (vocabulary == nullptr || !vocabulary->is_object()) {
    return absl::InvalidArgumentError(StrCat(what, ".vocab is not an object"));
  }
  for (const auto& [token, id] : vocabulary->items()) {
    if (!id.is_number_integer()) {
      return absl::InvalidArgumentError(
          StrCat(what, ".vocab: the id of \"", token, "\" is not an integer"));
    }
    const absl::Status added = parts->vocabulary.Add(token, id.get<int64_t>());
    if (!added.ok()) {
      return absl::InvalidArgumentError(StrCat(what, ".vocab: ", std::string(added.message())));
    }
  }
  MOESAIC_ASSIGN_OR_RETURN(parts->byte_fallback, JsonBool(json, "byte_fallback", what, false));
  MOESAIC_ASSIGN_OR_RETURN(const std::string unknown, JsonString(json, "unk_token", what, ""));
  if (!unknown.empty()) {
    parts->unknown_id = parts->vocabulary.Find(unknown);
    if (!parts->unknown_id) {
      return absl::InvalidArgumentError(
          StrCat(what, ".unk_token \"", unknown, "\" is not in the vocabulary"));
    }
  }
  return absl::OkStatus();
}

// A merge is written ["a", "b"], or "a b" in older files.
absl::Status AddMerge(const Json& merge, int32_t rank, BpeParts* parts) {
  std::string left;
  std::string right;
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    left = merge[0].get<std::string>();
    right = merge[1].get<std::string>();
  } else if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return absl::InvalidArgumentError(StrCat("\"", text, "\" is not two tokens"));
    }
    left = text.substr(0, space);
    right = text.substr(space + 1);
  } else {
    return absl::InvalidArgumentError("is neither a pair of tokens nor a string");
  }
  const std::optional<int32_t> left_id = parts->vocabulary.Find(left);
  const std::optional<int32_t> right_id = parts->vocabulary.Find(right);
  const std::optional<int32_t> merged_id = parts->vocabulary.Find(left + right);
  if (!left_id || !right_id || !merged_id) {
    return absl::InvalidArgumentError(StrCat("\"",
                                             !left_id    ? left
                                             : !right_id ? right
                                                         : left + right,
                                             "\" is not in the vocabulary"));
  }
  parts->merges.push_back({*left_id, *right_id, *merged_id, rank});
  return absl::OkStatus();
}

absl::Status ParseMerges(const Json& json, const std::string& what, BpeParts* parts) {
  const Json* merges = JsonFind(json, "merges");
  if (merges == nullptr || !merges->is_array()) {
    return absl::InvalidArgumentError(StrCat(what, ".merges is not a list"));
  }
  parts->merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const absl::Status added = AddMerge((*merges)[i], static_cast<int32_t>(i), parts);
    if (!added.ok()) {
      return absl::InvalidArgumentError(
          StrCat(what, ".merges[", i, "]: ", std::string(added.message())));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<TokenModel> MakeBpeModel(BpeParts parts) {
  return std::make_unique<BpeModel>(std::move(parts));
}

absl::StatusOr<std::unique_ptr<TokenModel>> ParseBpeModel(const Json& json,
                                                          const std::string& what) {
  BpeParts parts;
  MOESAIC_RETURN_IF_ERROR(ParseOptions(json, what, &parts));
  MOESAIC_RETURN_IF_ERROR(ParseVocabulary(json, what, &parts));
  MOESAIC_RETURN_IF_ERROR(ParseMerges(json, what, &parts));
  return MakeBpeModel(std::move(parts));
}

}  // namespace moesaic
