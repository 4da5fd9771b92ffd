#include "tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/precompiled_charsmap.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/token_model.h"
#include "tokenizer/tokenizer_base.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

using PieceType = SentencePieceModel::PieceType;

constexpr std::string_view kConfigFile = "tokenizer_config.json";
constexpr std::string_view kSpace = "\xE2\x96\x81";

// Trims spaces and makes one of several, as SentencePiece does when it trained so.
std::string WithoutExtraSpaces(std::string_view text) {
  std::string trimmed;
  trimmed.reserve(text.size());
  for (const char c : text) {
    if (c != ' ' || (!trimmed.empty() && trimmed.back() != ' ')) trimmed.push_back(c);
  }
  if (!trimmed.empty() && trimmed.back() == ' ') trimmed.pop_back();
  return trimmed;
}

// Pieces merge by score: every way to split one into two others is a merge, and of equal scores the
// leftmost comes first.
std::vector<BpeMerge> MakeMerges(const SentencePieceModel& model, const Vocabulary& vocabulary) {
  const auto is_mergeable = [&](int32_t id) {
    const PieceType type = model.pieces[static_cast<size_t>(id)].type;
    return type == PieceType::kNormal || type == PieceType::kUnused;
  };
  std::vector<int32_t> by_score;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (is_mergeable(id)) by_score.push_back(id);
  }
  const auto score = [&](int32_t id) { return model.pieces[static_cast<size_t>(id)].score; };
  std::stable_sort(by_score.begin(), by_score.end(),
                   [&](int32_t a, int32_t b) { return score(a) > score(b); });
  std::vector<BpeMerge> merges;
  int32_t rank = 0;
  for (size_t i = 0; i < by_score.size(); ++i) {
    if (i > 0 && score(by_score[i]) != score(by_score[i - 1])) ++rank;
    const std::string_view text = vocabulary.TokenOf(by_score[i]);
    size_t split = 0;
    NextCodePoint(text, &split);
    while (split < text.size()) {
      const std::optional<int32_t> left = vocabulary.Find(text.substr(0, split));
      const std::optional<int32_t> right = vocabulary.Find(text.substr(split));
      if (left && right && is_mergeable(*left) && is_mergeable(*right)) {
        merges.push_back({*left, *right, by_score[i], rank});
      }
      NextCodePoint(text, &split);
    }
  }
  return merges;
}

class SentencePieceTokenizer final : public TokenizerBase {
 public:
  absl::Status Load(std::string_view bytes, const Json& config);

 private:
  absl::Status LoadPieces(const SentencePieceModel& model);
  absl::Status LoadConfig(const SentencePieceModel& model, const Json& config);
  absl::Status LoadAddedTokens(const SentencePieceModel& model, const Json& config);
  void MakeDecoder();

  const Vocabulary& vocabulary() const override { return model_->vocabulary(); }
  // Added tokens are looked for in the text as it is.
  absl::Status Normalize(std::string*) const override { return absl::OkStatus(); }
  absl::Status Tokenize(std::string text,
                        bool starts_request,
                        std::vector<int32_t>* ids) const override;

  std::unique_ptr<TokenModel> model_;
  PrecompiledCharsmap charsmap_;
  bool remove_extra_spaces_ = false;
  bool prefix_first_ = true;    // the request's beginning gets a space before it
  bool prefix_always_ = false;  // what follows a special token too
};

absl::Status SentencePieceTokenizer::Load(std::string_view bytes, const Json& config) {
  MOESAIC_ASSIGN_OR_RETURN(const SentencePieceModel model, ParseSentencePieceModel(bytes));
  MOESAIC_RETURN_IF_ERROR(LoadPieces(model));
  MOESAIC_ASSIGN_OR_RETURN(
      charsmap_, PrecompiledCharsmap::Parse(model.precompiled_charsmap, "tokenizer.model"));
  remove_extra_spaces_ = model.remove_extra_whitespaces;
  MOESAIC_RETURN_IF_ERROR(LoadConfig(model, config));
  MOESAIC_RETURN_IF_ERROR(LoadAddedTokens(model, config));
  MakeDecoder();
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::LoadPieces(const SentencePieceModel& model) {
  Vocabulary vocabulary;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    MOESAIC_RETURN_IF_ERROR(vocabulary.Add(model.pieces[id].text, static_cast<int64_t>(id)));
  }
  if (model.type == SentencePieceModel::Type::kBpe) {
    BpeParts parts;
    parts.merges = MakeMerges(model, vocabulary);
    parts.vocabulary = std::move(vocabulary);
    parts.unknown_id = model.unknown_id;
    parts.byte_fallback = model.byte_fallback;
    parts.fuse_unknown = true;
    model_ = MakeBpeModel(std::move(parts));
  } else {
    UnigramParts parts;
    for (const SentencePieceModel::Piece& piece : model.pieces) {
      const bool is_found = piece.type == PieceType::kNormal;
      parts.scores.push_back(is_found ? std::optional<double>(piece.score) : std::nullopt);
    }
    parts.vocabulary = std::move(vocabulary);
    parts.unknown_id = model.unknown_id;
    parts.byte_fallback = model.byte_fallback;
    model_ = MakeUnigramModel(std::move(parts));
  }
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::LoadConfig(const SentencePieceModel& model,
                                                const Json& config) {
  const Json fields = config.is_null() ? Json::object() : config;
  if (!fields.is_object()) {
    return absl::InvalidArgumentError(StrCat(kConfigFile, " is not an object"));
  }
  MOESAIC_ASSIGN_OR_RETURN(const bool add_bos,
                           JsonBool(fields, "add_bos_token", kConfigFile, model.bos_id >= 0));
  MOESAIC_ASSIGN_OR_RETURN(const bool add_eos,
                           JsonBool(fields, "add_eos_token", kConfigFile, false));
  MOESAIC_ASSIGN_OR_RETURN(const bool add_prefix,
                           JsonBool(fields, "add_prefix_space", kConfigFile, true));
  MOESAIC_ASSIGN_OR_RETURN(const bool legacy, JsonBool(fields, "legacy", kConfigFile, false));
  if ((add_bos && model.bos_id < 0) || (add_eos && model.eos_id < 0)) {
    return absl::InvalidArgumentError(
        StrCat(kConfigFile, ": ", add_bos && model.bos_id < 0 ? "add_bos_token" : "add_eos_token",
               " asks for a token that tokenizer.model does not have"));
  }
  if (add_bos) post_processor_.before = {model.bos_id};
  if (add_eos) post_processor_.after = {model.eos_id};
  prefix_first_ = add_prefix && model.add_dummy_prefix;
  prefix_always_ = prefix_first_ && legacy;
  return absl::OkStatus();
}

// Control tokens, the unknown token and user-defined symbols of the model, and the configuration's
// tokens.
absl::Status SentencePieceTokenizer::LoadAddedTokens(const SentencePieceModel& model,
                                                     const Json& config) {
  Json tokens = Json::array();
  const auto is_added = [&](size_t id) {
    const PieceType type = model.pieces[id].type;
    return type == PieceType::kControl || type == PieceType::kUnknown ||
           type == PieceType::kUserDefined;
  };
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    if (!is_added(id)) continue;
    tokens.push_back({{"id", id},
                      {"content", model.pieces[id].text},
                      {"special", model.pieces[id].type != PieceType::kUserDefined},
                      {"normalized", false}});
  }
  const std::string what = StrCat(kConfigFile, ": added_tokens_decoder");
  const Json* decoder = config.is_object() ? JsonFind(config, "added_tokens_decoder") : nullptr;
  if (decoder != nullptr && !decoder->is_object()) {
    return absl::InvalidArgumentError(StrCat(what, " is not an object"));
  }
  if (decoder != nullptr) {
    for (const auto& [key, value] : decoder->items()) {
      uint32_t id = 0;
      const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
      if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || !value.is_object()) {
        return absl::InvalidArgumentError(StrCat(what, ".", key, " is not a token by its id"));
      }
      if (id < model.pieces.size() && is_added(id)) continue;
      tokens.push_back(value);
      tokens.back()["id"] = id;
    }
  }
  MOESAIC_ASSIGN_OR_RETURN(const std::unique_ptr<Normalizer> none, ParseNormalizer(Json(), ""));
  MOESAIC_ASSIGN_OR_RETURN(added_, AddedTokens::Parse(tokens, what, vocabulary(), *none));
  return absl::OkStatus();
}

void SentencePieceTokenizer::MakeDecoder() {
  DecoderStep spaces;
  spaces.kind = DecoderStep::Kind::kReplace;
  spaces.pattern = kSpace;
  spaces.content = " ";
  DecoderStep bytes;
  bytes.kind = DecoderStep::Kind::kByteFallback;
  DecoderStep fuse;
  fuse.kind = DecoderStep::Kind::kFuse;
  decoder_ = {spaces, bytes, fuse};
  if (!prefix_first_) return;
  DecoderStep strip;
  strip.kind = DecoderStep::Kind::kStrip;
  strip.content = " ";
  strip.start = 1;
  strip.whole_tokens = false;
  decoder_.push_back(strip);
}

absl::Status SentencePieceTokenizer::Tokenize(std::string text,
                                              bool starts_request,
                                              std::vector<int32_t>* ids) const {
  charsmap_.Apply(&text);
  if (remove_extra_spaces_) text = WithoutExtraSpaces(text);
  if (text.empty()) return absl::OkStatus();
  PreTokenizedText pieces;
  if (starts_request ? prefix_first_ : prefix_always_) pieces.text = kSpace;
  for (const char c : text) {
    if (c == ' ') {
      pieces.text += kSpace;
    } else {
      pieces.text.push_back(c);
    }
  }
  pieces.pieces = {{0, pieces.text.size()}};
  return model_->Tokenize(pieces, ids);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(std::string_view model,
                                                                      const Json& config) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>();
  MOESAIC_RETURN_IF_ERROR(tokenizer->Load(model, config));
  return tokenizer;
}

}  // namespace moesaic
