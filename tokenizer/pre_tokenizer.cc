#include "tokenizer/pre_tokenizer.h"

#include <optional>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/split.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

// GPT-2's: contractions, words, numbers and the rest, each with a space before it.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class SequencePreTokenizer final : public PreTokenizer {
 public:
  explicit SequencePreTokenizer(std::vector<std::unique_ptr<PreTokenizer>> steps)
      : steps_(std::move(steps)) {}

  absl::Status Apply(PreTokenizedText* text) const override {
    for (const auto& step : steps_) MOESAIC_RETURN_IF_ERROR(step->Apply(text));
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

// Splits at matches of a string or a regular expression.
class SplitPreTokenizer final : public PreTokenizer {
 public:
  SplitPreTokenizer(std::unique_ptr<Regex> regex,
                    std::string delimiter,
                    SplitBehavior behavior,
                    bool invert)
      : regex_(std::move(regex)),
        delimiter_(std::move(delimiter)),
        behavior_(behavior),
        invert_(invert) {}

  absl::Status Apply(PreTokenizedText* text) const override {
    std::vector<Span> pieces;
    std::vector<Span> matches;
    for (size_t i = 0; i < text->pieces.size(); ++i) {
      const std::string_view piece = text->Piece(i);
      if (regex_ != nullptr) {
        MOESAIC_RETURN_IF_ERROR(regex_->FindAll(piece, &matches));
      } else {
        matches = FindString(piece, delimiter_);
      }
      SplitAt(piece, matches, behavior_, invert_, text->pieces[i].begin, &pieces);
    }
    text->pieces = std::move(pieces);
    return absl::OkStatus();
  }

 private:
  const std::unique_ptr<Regex> regex_;  // null: split at `delimiter_`
  const std::string delimiter_;
  const SplitBehavior behavior_;
  const bool invert_;
};

// Splits at characters of one kind.
class CharacterPreTokenizer final : public PreTokenizer {
 public:
  CharacterPreTokenizer(bool (*is_delimiter)(char32_t), SplitBehavior behavior)
      : is_delimiter_(is_delimiter), behavior_(behavior) {}

  absl::Status Apply(PreTokenizedText* text) const override {
    std::vector<Span> pieces;
    for (size_t i = 0; i < text->pieces.size(); ++i) {
      const std::string_view piece = text->Piece(i);
      SplitAt(piece, FindCharacters(piece, is_delimiter_), behavior_, /*invert=*/false,
              text->pieces[i].begin, &pieces);
    }
    text->pieces = std::move(pieces);
    return absl::OkStatus();
  }

 private:
  bool (*const is_delimiter_)(char32_t);
  const SplitBehavior behavior_;
};

// Runs of word characters, runs of other characters; white space goes.
class WhitespacePreTokenizer final : public PreTokenizer {
 public:
  absl::Status Apply(PreTokenizedText* text) const override {
    enum class Kind { kSpace, kWord, kOther };
    std::vector<Span> pieces;
    for (const Span& piece : text->pieces) {
      const std::string_view view = std::string_view(text->text).substr(0, piece.end);
      Kind previous = Kind::kSpace;
      for (size_t pos = piece.begin; pos < piece.end;) {
        const size_t begin = pos;
        const char32_t c = NextCodePoint(view, &pos);
        const Kind kind = IsWordCharacter(c) ? Kind::kWord
                          : IsWhiteSpace(c)  ? Kind::kSpace
                                             : Kind::kOther;
        if (kind != Kind::kSpace) {
          if (kind == previous) {
            pieces.back().end = pos;
          } else {
            pieces.push_back({begin, pos});
          }
        }
        previous = kind;
      }
    }
    text->pieces = std::move(pieces);
    return absl::OkStatus();
  }
};

class ByteLevelPreTokenizer final : public PreTokenizer {
 public:
  ByteLevelPreTokenizer(bool add_prefix_space, bool use_regex)
      : add_prefix_space_(add_prefix_space),
        regex_(use_regex ? Regex::CompileOrDie(kByteLevelPattern) : nullptr) {}

  absl::Status Apply(PreTokenizedText* text) const override {
    PreTokenizedText out;
    out.starts_request = text->starts_request;
    out.text.reserve(text->text.size() + text->text.size() / 2);
    out.pieces.reserve(text->pieces.size());
    std::vector<Span> matches;
    std::vector<Span> words;
    std::string with_space;
    for (size_t i = 0; i < text->pieces.size(); ++i) {
      std::string_view piece = text->Piece(i);
      if (add_prefix_space_ && piece.front() != ' ') {
        with_space = StrCat(" ", piece);
        piece = with_space;
      }
      words.clear();
      if (regex_ != nullptr) {
        MOESAIC_RETURN_IF_ERROR(regex_->FindAll(piece, &matches));
        SplitAt(piece, matches, SplitBehavior::kIsolated, /*invert=*/false, 0, &words);
      } else {
        words.push_back({0, piece.size()});
      }
      for (const Span& word : words) {
        const size_t begin = out.text.size();
        AppendByteLevel(piece.substr(word.begin, word.end - word.begin), &out.text);
        out.pieces.push_back({begin, out.text.size()});
      }
    }
    *text = std::move(out);
    return absl::OkStatus();
  }

 private:
  const bool add_prefix_space_;
  const std::unique_ptr<Regex> regex_;
};

// SentencePiece's: spaces become a visible character, which also begins the text.
class MetaspacePreTokenizer final : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };

  MetaspacePreTokenizer(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {}

  absl::Status Apply(PreTokenizedText* text) const override {
    PreTokenizedText out;
    out.starts_request = text->starts_request;
    out.text.reserve(text->text.size() + text->text.size() / 2);
    for (size_t i = 0; i < text->pieces.size(); ++i) {
      const std::string_view piece = text->Piece(i);
      const size_t begin = out.text.size();
      const bool is_first = text->starts_request && text->pieces[i].begin == 0;
      const bool prepend =
          prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && is_first);
      if (prepend && piece.front() != ' ' && !piece.starts_with(replacement_)) {
        out.text += replacement_;
      }
      for (const char c : piece) {
        if (c == ' ') {
          out.text += replacement_;
        } else {
          out.text.push_back(c);
        }
      }
      if (!split_) {
        out.pieces.push_back({begin, out.text.size()});
        continue;
      }
      const std::string_view rewritten = std::string_view(out.text).substr(begin);
      SplitAt(rewritten, FindString(rewritten, replacement_), SplitBehavior::kMergedWithNext,
              /*invert=*/false, begin, &out.pieces);
    }
    *text = std::move(out);
    return absl::OkStatus();
  }

 private:
  const std::string replacement_;
  const Prepend prepend_;
  const bool split_;
};

absl::StatusOr<SplitBehavior> ParseBehavior(const Json& json,
                                            const std::string& what,
                                            std::optional<std::string> fallback) {
  MOESAIC_ASSIGN_OR_RETURN(const std::string name,
                           JsonString(json, "behavior", what, std::move(fallback)));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return absl::InvalidArgumentError(
      StrCat(what, ": behavior \"", name, "\" is not one of the five known"));
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> ParseSplit(const Json& json,
                                                         const std::string& what) {
  MOESAIC_ASSIGN_OR_RETURN(const SplitBehavior behavior, ParseBehavior(json, what, std::nullopt));
  MOESAIC_ASSIGN_OR_RETURN(const bool invert, JsonBool(json, "invert", what, false));
  const Json* pattern = JsonFind(json, "pattern");
  if (pattern == nullptr || !pattern->is_object()) {
    return absl::InvalidArgumentError(StrCat(what, ": pattern is not an object"));
  }
  if (JsonFind(*pattern, "Regex") != nullptr) {
    MOESAIC_ASSIGN_OR_RETURN(const std::string text, JsonString(*pattern, "Regex", what));
    MOESAIC_ASSIGN_OR_RETURN(std::unique_ptr<Regex> regex, Regex::Compile(text, what));
    return std::make_unique<SplitPreTokenizer>(std::move(regex), "", behavior, invert);
  }
  MOESAIC_ASSIGN_OR_RETURN(std::string text, JsonString(*pattern, "String", what));
  if (text.empty()) return absl::InvalidArgumentError(StrCat(what, ": pattern.String is empty"));
  return std::make_unique<SplitPreTokenizer>(nullptr, std::move(text), behavior, invert);
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> ParseMetaspace(const Json& json,
                                                             const std::string& what) {
  using Prepend = MetaspacePreTokenizer::Prepend;
  MOESAIC_ASSIGN_OR_RETURN(std::string replacement,
                           JsonString(json, "replacement", what, "\xE2\x96\x81"));
  if (replacement.empty()) {
    return absl::InvalidArgumentError(StrCat(what, ": replacement is empty"));
  }
  MOESAIC_ASSIGN_OR_RETURN(const bool split, JsonBool(json, "split", what, true));
  // Files from before prepend_scheme have only this flag.
  MOESAIC_ASSIGN_OR_RETURN(const bool add_prefix_space,
                           JsonBool(json, "add_prefix_space", what, true));
  MOESAIC_ASSIGN_OR_RETURN(
      const std::string scheme,
      JsonString(json, "prepend_scheme", what, add_prefix_space ? "always" : "never"));
  Prepend prepend = Prepend::kAlways;
  if (scheme == "first") {
    prepend = Prepend::kFirst;
  } else if (scheme == "never") {
    prepend = Prepend::kNever;
  } else if (scheme != "always") {
    return absl::InvalidArgumentError(
        StrCat(what, ": prepend_scheme \"", scheme, "\" is not always, first or never"));
  }
  return std::make_unique<MetaspacePreTokenizer>(std::move(replacement), prepend, split);
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> ParseSequence(const Json& json,
                                                            const std::string& what) {
  const Json* list = JsonFind(json, "pretokenizers");
  if (list == nullptr || !list->is_array()) {
    return absl::InvalidArgumentError(StrCat(what, ": pretokenizers is not a list"));
  }
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  for (size_t i = 0; i < list->size(); ++i) {
    MOESAIC_ASSIGN_OR_RETURN(
        std::unique_ptr<PreTokenizer> step,
        ParsePreTokenizer((*list)[i], StrCat(what, ".pretokenizers[", i, "]")));
    steps.push_back(std::move(step));
  }
  return std::make_unique<SequencePreTokenizer>(std::move(steps));
}

}  // namespace

absl::StatusOr<std::unique_ptr<PreTokenizer>> ParsePreTokenizer(const Json& json,
                                                                const std::string& what) {
  if (json.is_null())
    return std::make_unique<SequencePreTokenizer>(std::vector<std::unique_ptr<PreTokenizer>>());
  if (!json.is_object()) return absl::InvalidArgumentError(StrCat(what, " is not an object"));
  MOESAIC_ASSIGN_OR_RETURN(const std::string type, JsonString(json, "type", what));
  if (type == "Sequence") return ParseSequence(json, what);
  if (type == "Split") return ParseSplit(json, what);
  if (type == "Metaspace") return ParseMetaspace(json, what);
  if (type == "ByteLevel") {
    MOESAIC_ASSIGN_OR_RETURN(const bool add_prefix_space,
                             JsonBool(json, "add_prefix_space", what, true));
    MOESAIC_ASSIGN_OR_RETURN(const bool use_regex, JsonBool(json, "use_regex", what, true));
    return std::make_unique<ByteLevelPreTokenizer>(add_prefix_space, use_regex);
  }
  if (type == "Digits") {
    MOESAIC_ASSIGN_OR_RETURN(const bool individual,
                             JsonBool(json, "individual_digits", what, false));
    return std::make_unique<CharacterPreTokenizer>(
        IsNumeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  }
  if (type == "Punctuation") {
    MOESAIC_ASSIGN_OR_RETURN(const SplitBehavior behavior, ParseBehavior(json, what, "Isolated"));
    return std::make_unique<CharacterPreTokenizer>(IsPunctuation, behavior);
  }
  if (type == "WhitespaceSplit") {
    return std::make_unique<CharacterPreTokenizer>(IsWhiteSpace, SplitBehavior::kRemoved);
  }
  if (type == "Whitespace") return std::make_unique<WhitespacePreTokenizer>();
  return absl::InvalidArgumentError(StrCat(what, ": type \"", type, "\" is not supported"));
}

}  // namespace moesaic
