#include "tokenizer/normalizer.h"

#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/precompiled_charsmap.h"
#include "tokenizer/regex.h"
#include "tokenizer/split.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

class SequenceNormalizer final : public Normalizer {
 public:
  explicit SequenceNormalizer(std::vector<std::unique_ptr<Normalizer>> steps)
      : steps_(std::move(steps)) {}

  absl::Status Apply(std::string* text) const override {
    for (const auto& step : steps_) MOESAIC_RETURN_IF_ERROR(step->Apply(text));
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

class UnicodeNormalizer final : public Normalizer {
 public:
  explicit UnicodeNormalizer(NormalForm form) : form_(form) {}
  absl::Status Apply(std::string* text) const override {
    NormalizeText(form_, text);
    return absl::OkStatus();
  }

 private:
  const NormalForm form_;
};

class LowercaseNormalizer final : public Normalizer {
 public:
  absl::Status Apply(std::string* text) const override {
    LowercaseText(text);
    return absl::OkStatus();
  }
};

class PrependNormalizer final : public Normalizer {
 public:
  explicit PrependNormalizer(std::string prefix) : prefix_(std::move(prefix)) {}
  absl::Status Apply(std::string* text) const override {
    if (!text->empty()) text->insert(0, prefix_);
    return absl::OkStatus();
  }

 private:
  const std::string prefix_;
};

class ReplaceNormalizer final : public Normalizer {
 public:
  ReplaceNormalizer(std::unique_ptr<Regex> regex, std::string pattern, std::string content)
      : regex_(std::move(regex)), pattern_(std::move(pattern)), content_(std::move(content)) {}

  absl::Status Apply(std::string* text) const override {
    std::vector<Span> matches;
    if (regex_ != nullptr) {
      MOESAIC_RETURN_IF_ERROR(regex_->FindAll(*text, &matches));
    } else {
      matches = FindString(*text, pattern_);
    }
    if (matches.empty()) return absl::OkStatus();
    std::string replaced;
    replaced.reserve(text->size());
    size_t end = 0;
    for (const Span& match : matches) {
      replaced.append(*text, end, match.begin - end);
      replaced += content_;
      end = match.end;
    }
    replaced.append(*text, end);
    *text = std::move(replaced);
    return absl::OkStatus();
  }

 private:
  const std::unique_ptr<Regex> regex_;  // null: replace `pattern_`
  const std::string pattern_;
  const std::string content_;
};

class StripNormalizer final : public Normalizer {
 public:
  StripNormalizer(bool left, bool right) : left_(left), right_(right) {}

  absl::Status Apply(std::string* text) const override {
    size_t end = text->size();
    if (right_) {
      while (end > 0) {
        const char32_t c = LastCodePoint(*text, end);
        if (!IsWhiteSpace(c)) break;
        end -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;  // no white space is above U+FFFF
      }
    }
    size_t begin = 0;
    if (left_) {
      for (size_t next = 0; next < end; begin = next) {
        if (!IsWhiteSpace(NextCodePoint(*text, &next))) break;
      }
    }
    *text = text->substr(begin, end - begin);
    return absl::OkStatus();
  }

 private:
  const bool left_;
  const bool right_;
};

// Rewrites or drops characters one by one.
class CharacterNormalizer final : public Normalizer {
 public:
  static constexpr char32_t kDropped = 0x110000;

  explicit CharacterNormalizer(char32_t (*rewrite)(char32_t)) : rewrite_(rewrite) {}

  absl::Status Apply(std::string* text) const override {
    std::string rewritten;
    rewritten.reserve(text->size());
    for (size_t pos = 0; pos < text->size();) {
      const char32_t c = rewrite_(NextCodePoint(*text, &pos));
      if (c != kDropped) AppendUtf8(c, &rewritten);
    }
    *text = std::move(rewritten);
    return absl::OkStatus();
  }

 private:
  char32_t (*const rewrite_)(char32_t);
};

char32_t DropMark(char32_t c) { return IsMark(c) ? CharacterNormalizer::kDropped : c; }

// SentencePiece's rules for machine translation: control characters go, odd spaces become spaces.
char32_t RewriteNmt(char32_t c) {
  if ((c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F ||
      c == 0x9F) {
    return CharacterNormalizer::kDropped;
  }
  const bool is_space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                        (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                        c == 0xFEFF || c == 0xFFFD;
  return is_space ? U' ' : c;
}

class PrecompiledNormalizer final : public Normalizer {
 public:
  explicit PrecompiledNormalizer(PrecompiledCharsmap map) : map_(std::move(map)) {}
  absl::Status Apply(std::string* text) const override {
    map_.Apply(text);
    return absl::OkStatus();
  }

 private:
  const PrecompiledCharsmap map_;
};

absl::StatusOr<std::unique_ptr<Normalizer>> ParseReplace(const Json& json,
                                                         const std::string& what) {
  MOESAIC_ASSIGN_OR_RETURN(std::string content, JsonString(json, "content", what));
  const Json* pattern = JsonFind(json, "pattern");
  if (pattern == nullptr || !pattern->is_object()) {
    return absl::InvalidArgumentError(StrCat(what, ": pattern is not an object"));
  }
  if (JsonFind(*pattern, "Regex") != nullptr) {
    MOESAIC_ASSIGN_OR_RETURN(const std::string text, JsonString(*pattern, "Regex", what));
    MOESAIC_ASSIGN_OR_RETURN(std::unique_ptr<Regex> regex, Regex::Compile(text, what));
    return std::make_unique<ReplaceNormalizer>(std::move(regex), "", std::move(content));
  }
  MOESAIC_ASSIGN_OR_RETURN(std::string text, JsonString(*pattern, "String", what));
  if (text.empty()) return absl::InvalidArgumentError(StrCat(what, ": pattern.String is empty"));
  return std::make_unique<ReplaceNormalizer>(nullptr, std::move(text), std::move(content));
}

absl::StatusOr<std::unique_ptr<Normalizer>> ParseSequence(const Json& json,
                                                          const std::string& what) {
  const Json* list = JsonFind(json, "normalizers");
  if (list == nullptr || !list->is_array()) {
    return absl::InvalidArgumentError(StrCat(what, ": normalizers is not a list"));
  }
  std::vector<std::unique_ptr<Normalizer>> steps;
  for (size_t i = 0; i < list->size(); ++i) {
    MOESAIC_ASSIGN_OR_RETURN(std::unique_ptr<Normalizer> step,
                             ParseNormalizer((*list)[i], StrCat(what, ".normalizers[", i, "]")));
    steps.push_back(std::move(step));
  }
  return std::make_unique<SequenceNormalizer>(std::move(steps));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Normalizer>> ParseNormalizer(const Json& json,
                                                            const std::string& what) {
  if (json.is_null()) {
    return std::make_unique<SequenceNormalizer>(std::vector<std::unique_ptr<Normalizer>>());
  }
  if (!json.is_object()) return absl::InvalidArgumentError(StrCat(what, " is not an object"));
  MOESAIC_ASSIGN_OR_RETURN(const std::string type, JsonString(json, "type", what));
  if (type == "Sequence") return ParseSequence(json, what);
  if (type == "NFC") return std::make_unique<UnicodeNormalizer>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<UnicodeNormalizer>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<UnicodeNormalizer>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<UnicodeNormalizer>(NormalForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<LowercaseNormalizer>();
  if (type == "StripAccents") return std::make_unique<CharacterNormalizer>(DropMark);
  if (type == "Nmt") return std::make_unique<CharacterNormalizer>(RewriteNmt);
  if (type == "Replace") return ParseReplace(json, what);
  if (type == "Prepend") {
    MOESAIC_ASSIGN_OR_RETURN(std::string prefix, JsonString(json, "prepend", what));
    return std::make_unique<PrependNormalizer>(std::move(prefix));
  }
  if (type == "Strip") {
    MOESAIC_ASSIGN_OR_RETURN(const bool left, JsonBool(json, "strip_left", what, true));
    MOESAIC_ASSIGN_OR_RETURN(const bool right, JsonBool(json, "strip_right", what, true));
    return std::make_unique<StripNormalizer>(left, right);
  }
  if (type == "Precompiled") {
    MOESAIC_ASSIGN_OR_RETURN(const std::string base64,
                             JsonString(json, "precompiled_charsmap", what, ""));
    std::string bytes;
    if (!absl::Base64Unescape(base64, &bytes)) {
      return absl::InvalidArgumentError(StrCat(what, ": precompiled_charsmap is not base64"));
    }
    MOESAIC_ASSIGN_OR_RETURN(PrecompiledCharsmap map, PrecompiledCharsmap::Parse(bytes, what));
    return std::make_unique<PrecompiledNormalizer>(std::move(map));
  }
  return absl::InvalidArgumentError(StrCat(what, ": type \"", type, "\" is not supported"));
}

}  // namespace moesaic
