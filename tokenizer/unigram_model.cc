#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/byte_trie.h"
#include "tokenizer/token_model.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

// How much worse than the worst token an unknown character scores; SentencePiece's constant.
constexpr double kUnknownPenalty = 10.0;

// The best way to spell what ends at one byte.
struct BestPath {
  double score = 0.0;
  int64_t begin = -1;  // where its last token begins; -1: nothing ends here
  int32_t id = 0;
};

// The tokens of highest total score (log-probability), by Viterbi's algorithm over a trie of the
// vocabulary: time is text length × longest token.
class UnigramModel final : public TokenModel {
 public:
  explicit UnigramModel(UnigramParts parts)
      : vocabulary_(std::move(parts.vocabulary)),
        scores_(std::move(parts.scores)),
        unknown_id_(parts.unknown_id),
        byte_ids_(parts.byte_fallback ? vocabulary_.ByteTokens() : std::vector<int32_t>()) {
    double lowest = std::numeric_limits<double>::infinity();
    std::vector<std::pair<std::string, int32_t>> entries;
    for (int32_t id = 0; id < vocabulary_.size(); ++id) {
      const std::optional<double> score = scores_[static_cast<size_t>(id)];
      if (!score) continue;
      lowest = std::min(lowest, *score);
      const std::string_view token = vocabulary_.TokenOf(id);
      entries.emplace_back(token, *vocabulary_.Find(token));
    }
    unknown_score_ = lowest - kUnknownPenalty;
    trie_ = ByteTrie(std::move(entries));
  }

  absl::Status Tokenize(const PreTokenizedText& text, std::vector<int32_t>* ids) const override {
    std::vector<BestPath> ending_at;
    std::vector<Span> tokens;
    for (size_t i = 0; i < text.pieces.size(); ++i) {
      const std::string_view piece = text.Piece(i);
      MOESAIC_RETURN_IF_ERROR(FindBestPath(piece, &ending_at));
      TraceBack(ending_at, &tokens);
      for (const Span& token : tokens) {
        MOESAIC_RETURN_IF_ERROR(AppendIds(piece.substr(token.begin, token.end - token.begin), ids));
      }
    }
    return absl::OkStatus();
  }

  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  absl::Status FindBestPath(std::string_view piece, std::vector<BestPath>* ending_at) const {
    ending_at->assign(piece.size() + 1, BestPath());
    const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
      BestPath& best = (*ending_at)[end];
      if (best.begin < 0 || score > best.score) best = {score, static_cast<int64_t>(begin), id};
    };
    for (size_t begin = 0; begin < piece.size();) {
      const double score_here = (*ending_at)[begin].score;
      size_t character_end = begin;
      NextCodePoint(piece, &character_end);
      bool has_character = false;
      int32_t node = ByteTrie::kRoot;
      for (size_t end = begin; end < piece.size();) {
        node = trie_.Step(node, static_cast<unsigned char>(piece[end]));
        if (node == ByteTrie::kNoNode) break;
        ++end;
        const int32_t id = trie_.Value(node);
        if (id == ByteTrie::kNoValue) continue;
        offer(begin, end, *scores_[static_cast<size_t>(id)] + score_here, id);
        has_character = has_character || end == character_end;
      }
      if (!has_character) {
        if (!unknown_id_) {
          return absl::InvalidArgumentError(
              StrCat("character \"", piece.substr(begin, character_end - begin),
                     "\" is not in the vocabulary, and there is no unk_id"));
        }
        offer(begin, character_end, unknown_score_ + score_here, *unknown_id_);
      }
      begin = character_end;
    }
    return absl::OkStatus();
  }

  // The tokens of the best path; neighbouring unknown ones are one.
  void TraceBack(const std::vector<BestPath>& ending_at, std::vector<Span>* tokens) const {
    tokens->clear();
    bool next_is_unknown = false;
    for (size_t end = ending_at.size() - 1; end > 0;) {
      const auto begin = static_cast<size_t>(ending_at[end].begin);
      const bool is_unknown = unknown_id_ == ending_at[end].id;
      if (is_unknown && next_is_unknown) {
        tokens->back().begin = begin;
      } else {
        tokens->push_back({begin, end});
      }
      next_is_unknown = is_unknown;
      end = begin;
    }
    std::reverse(tokens->begin(), tokens->end());
  }

  absl::Status AppendIds(std::string_view token, std::vector<int32_t>* ids) const {
    if (const std::optional<int32_t> id = vocabulary_.Find(token)) {
      ids->push_back(*id);
      return absl::OkStatus();
    }
    const auto has_token = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)] >= 0; };
    if (!byte_ids_.empty() && std::all_of(token.begin(), token.end(), has_token)) {
      for (const char c : token) ids->push_back(byte_ids_[static_cast<unsigned char>(c)]);
    } else {
      ids->push_back(*unknown_id_);
    }
    return absl::OkStatus();
  }

  const Vocabulary vocabulary_;
  const std::vector<std::optional<double>> scores_;  // by id
  const std::optional<int32_t> unknown_id_;
  const std::vector<int32_t> byte_ids_;  // empty: no byte fallback
  double unknown_score_ = 0.0;
  ByteTrie trie_;
};

}  // namespace

std::unique_ptr<TokenModel> MakeUnigramModel(UnigramParts parts) {
  return std::make_unique<UnigramModel>(std::move(parts));
}

absl::StatusOr<std::unique_ptr<TokenModel>> ParseUnigramModel(const Json& json,
                                                              const std::string& what) {
  const Json* vocabulary = JsonFind(json, "vocab");
  if (vocabulary == nullptr || !vocabulary->is_array() || vocabulary->empty()) {
    return absl::InvalidArgumentError(StrCat(what, ".vocab is not a list of tokens"));
  }
  UnigramParts parts;
  for (size_t i = 0; i < vocabulary->size(); ++i) {
    const Json& entry = (*vocabulary)[i];
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      return absl::InvalidArgumentError(
          StrCat(what, ".vocab[", i, "] is not a token with its score"));
    }
    parts.scores.push_back(entry[1].get<double>());
    const absl::Status added =
        parts.vocabulary.Add(entry[0].get_ref<const std::string&>(), static_cast<int64_t>(i));
    if (!added.ok()) {
      return absl::InvalidArgumentError(
          StrCat(what, ".vocab[", i, "]: ", std::string(added.message())));
    }
  }
  const int64_t last = static_cast<int64_t>(parts.scores.size()) - 1;
  MOESAIC_ASSIGN_OR_RETURN(const int64_t unknown, JsonInt(json, "unk_id", what, -1, last, -1));
  if (unknown >= 0) parts.unknown_id = static_cast<int32_t>(unknown);
  MOESAIC_ASSIGN_OR_RETURN(parts.byte_fallback, JsonBool(json, "byte_fallback", what, false));
  return MakeUnigramModel(std::move(parts));
}

}  // namespace moesaic
