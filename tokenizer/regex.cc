#include "tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/unicode_tables.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

// Steps of backtracking from one position: a few milliseconds, far above what the expressions of
// known models need on any text.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr size_t kJitStackStartBytes = size_t{32} << 10;
constexpr size_t kJitStackMaxBytes = size_t{8} << 20;

// \w of Oniguruma besides letters, marks, Nd, Nl and Pc: superscripts, fractions, circled letters.
constexpr std::string_view kOtherWordCharacters =
    "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}"
    "\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}";

// The inside of a character class for a general category ("L", "Lu"), with the characters that are
// too new for PCRE2.
std::string CategoryClass(std::string_view category) {
  std::string members = StrCat("\\p{", category, "}");
  for (const CategoryRange& range : CategoriesSinceUnicode14()) {
    if (!std::string_view(range.category, 2).starts_with(category)) continue;
    members += StrCat("\\x{", absl::Hex(range.first), "}-\\x{", absl::Hex(range.last), "}");
  }
  return members;
}

std::string WordClass() {
  std::string members(kOtherWordCharacters);
  for (const std::string_view category : {"L", "M", "Nd", "Nl", "Pc"}) {
    members += CategoryClass(category);
  }
  return members;
}

// Rewrites one pattern from Oniguruma's dialect to PCRE2's where they differ, and refuses what it
// cannot rewrite.
class DialectTranslator {
 public:
  explicit DialectTranslator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Translate() {
    while (pos_ < pattern_.size()) {
      const char c = pattern_[pos_];
      absl::Status status = absl::OkStatus();
      if (c == '\\') {
        status = TranslateEscape();
      } else if (in_class_) {
        status = TranslateInClass(c);
      } else {
        status = TranslateOutsideClass(c);
      }
      MOESAIC_RETURN_IF_ERROR(status);
    }
    return std::move(out_);
  }

 private:
  absl::Status Unsupported(std::string_view what) const {
    return absl::InvalidArgumentError(
        StrCat("regular expression: ", what, " at byte ", pos_, " is not supported"));
  }

  bool Follows(std::string_view text) const { return pattern_.substr(pos_).starts_with(text); }

  void Copy(size_t count) {
    out_.append(pattern_.substr(pos_, count));
    pos_ += count;
  }

  absl::Status TranslateInClass(char c) {
    if (c == '[') return Unsupported("a nested character class");
    if (Follows("&&")) return Unsupported("an intersection of character classes");
    if (c == ']') in_class_ = false;
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status TranslateOutsideClass(char c) {
    if (c == '[') {
      in_class_ = true;
      Copy(Follows("[^") ? 2 : 1);
      if (Follows("]")) return Unsupported("']' as the first of a character class");
    } else if (c == '(') {
      return TranslateGroup();
    } else if (c == '{') {
      return TranslateInterval();
    } else {
      Copy(1);
    }
    return absl::OkStatus();
  }

  absl::Status TranslateGroup() {
    if (Follows("(*")) return Unsupported("\"(*\"");
    if (!Follows("(?")) {
      Copy(1);
      return absl::OkStatus();
    }
    for (const std::string_view known :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i)", "(?i:", "(?-i)", "(?-i:"}) {
      if (Follows(known)) {
        Copy(known.size());
        return absl::OkStatus();
      }
    }
    return Unsupported(pattern_.substr(pos_, 4));
  }

  // In Ruby's syntax an interval has no possessive form, and "{n}?" is an optional "{n}".
  absl::Status TranslateInterval() {
    const size_t close = pattern_.find('}', pos_);
    if (close == std::string_view::npos) return Unsupported("'{' without '}'");
    const std::string_view interval = pattern_.substr(pos_, close + 1 - pos_);
    bool has_comma = false;
    for (const char c : interval.substr(1, interval.size() - 2)) {
      if (c == ',' && !has_comma) {
        has_comma = true;
      } else if (!std::isdigit(static_cast<unsigned char>(c))) {
        return Unsupported(interval);
      }
    }
    if (interval.size() < 3 || interval[1] == ',') return Unsupported(interval);
    const char after = close + 1 < pattern_.size() ? pattern_[close + 1] : '\0';
    if (after == '+' || (after == '?' && !has_comma)) {
      return Unsupported(StrCat(interval, std::string(1, after)));
    }
    Copy(interval.size());
    return absl::OkStatus();
  }

  absl::Status TranslateEscape() {
    if (pos_ + 1 == pattern_.size()) return Unsupported("'\\' at the end");
    const char c = pattern_[pos_ + 1];
    const auto replace = [&](std::string_view text) {
      out_.append(text);
      pos_ += 2;
      return absl::OkStatus();
    };
    switch (c) {
      case 's':
        return replace("\\p{White_Space}");
      case 'S':
        return replace("\\P{White_Space}");
      case 'h':
        return replace(in_class_ ? "0-9a-fA-F" : "[0-9a-fA-F]");
      case 'v':
        return replace("\\x0b");
      case 'w':
        return replace(in_class_ ? WordClass() : StrCat("[", WordClass(), "]"));
      case 'W':
        if (in_class_) return Unsupported("\\W in a character class");
        return replace(StrCat("[^", WordClass(), "]"));
      case 'u':
        return TranslateCodePoint();
      case 'x':
        return TranslateHex();
      case 'p':
      case 'P':
        return TranslateProperty();
      case 'd':
      case 'D':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        Copy(2);
        return absl::OkStatus();
      case 'A':
      case 'Z':
      case 'z':
        if (in_class_) return Unsupported("an anchor in a character class");
        Copy(2);
        return absl::OkStatus();
      default:
        if (!std::ispunct(static_cast<unsigned char>(c)) && c != ' ') {
          return Unsupported(pattern_.substr(pos_, 2));
        }
        Copy(2);
        return absl::OkStatus();
    }
  }

  absl::Status TranslateProperty() {
    const size_t close = pattern_.find('}', pos_);
    if (pos_ + 2 >= pattern_.size() || pattern_[pos_ + 2] != '{' ||
        close == std::string_view::npos) {
      return Unsupported("\\p without braces");
    }
    const std::string_view name = pattern_.substr(pos_ + 3, close - pos_ - 3);
    const bool negated = pattern_[pos_ + 1] == 'P';
    const bool is_category = !name.empty() && name.size() <= 2 &&
                             std::string_view("LMNPS").find(name.front()) != std::string_view::npos;
    if (!is_category || (negated && in_class_)) {
      Copy(close + 1 - pos_);
      return absl::OkStatus();
    }
    const std::string members = CategoryClass(name);
    out_ += in_class_ ? members : StrCat(negated ? "[^" : "[", members, "]");
    pos_ = close + 1;
    return absl::OkStatus();
  }

  absl::Status TranslateCodePoint() {
    const std::string_view digits = pattern_.substr(pos_ + 2, 4);
    if (digits.size() < 4 || !IsHex(digits)) return Unsupported("\\u without four digits");
    out_.append(StrCat("\\x{", digits, "}"));
    pos_ += 6;
    return absl::OkStatus();
  }

  absl::Status TranslateHex() {
    if (Follows("\\x{")) {
      const size_t close = pattern_.find('}', pos_);
      if (close == std::string_view::npos || close == pos_ + 3 ||
          !IsHex(pattern_.substr(pos_ + 3, close - pos_ - 3))) {
        return Unsupported("\\x{ without its digits");
      }
      Copy(close + 1 - pos_);
      return absl::OkStatus();
    }
    // Two digits are a byte, not a character.
    const std::string_view digits = pattern_.substr(pos_ + 2, 2);
    if (digits.size() < 2 || !IsHex(digits) || digits[0] >= '8') {
      return Unsupported("\\x but for an ASCII character");
    }
    Copy(4);
    return absl::OkStatus();
  }

  static bool IsHex(std::string_view digits) {
    for (const char c : digits) {
      if (!std::isxdigit(static_cast<unsigned char>(c))) return false;
    }
    return true;
  }

  const std::string_view pattern_;
  size_t pos_ = 0;
  bool in_class_ = false;
  std::string out_;
};

std::string PcreMessage(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) return StrCat("error ", code);
  return reinterpret_cast<const char*>(buffer);
}

template <auto Free>
struct PcreDelete {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using CodePtr = std::unique_ptr<pcre2_code, PcreDelete<pcre2_code_free>>;
using CompileContextPtr =
    std::unique_ptr<pcre2_compile_context, PcreDelete<pcre2_compile_context_free>>;
using MatchContextPtr = std::unique_ptr<pcre2_match_context, PcreDelete<pcre2_match_context_free>>;
using MatchDataPtr = std::unique_ptr<pcre2_match_data, PcreDelete<pcre2_match_data_free>>;
using JitStackPtr = std::unique_ptr<pcre2_jit_stack, PcreDelete<pcre2_jit_stack_free>>;

// What one search needs besides the code.
class Matcher {
 public:
  explicit Matcher(const pcre2_code* code)
      : code_(code),
        context_(pcre2_match_context_create(nullptr)),
        data_(pcre2_match_data_create(1, nullptr)) {
    pcre2_set_match_limit(context_.get(), kMatchLimit);
  }

  // PCRE2's result for the first match at or behind `begin`.
  int Match(std::string_view text, size_t begin) {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    const auto match = [&] {
      return pcre2_match(code_, subject, text.size(), begin, PCRE2_NO_UTF_CHECK, data_.get(),
                         context_.get());
    };
    int result = match();
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && stack_ == nullptr) {
      // The default stack is the thread's, and small.
      stack_.reset(pcre2_jit_stack_create(kJitStackStartBytes, kJitStackMaxBytes, nullptr));
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      result = match();
    }
    return result;
  }

  Span match() const {
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
    return {offsets[0], offsets[1]};
  }

 private:
  const pcre2_code* code_;
  MatchContextPtr context_;
  MatchDataPtr data_;
  JitStackPtr stack_;
};

}  // namespace

struct Regex::Code {
  CodePtr pcre;
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::~Regex() = default;

absl::StatusOr<std::unique_ptr<Regex>> Regex::Compile(std::string_view pattern,
                                                      std::string_view what) {
  if (FindInvalidUtf8(pattern).has_value()) {
    return absl::InvalidArgumentError(StrCat(what, ": regular expression is not UTF-8"));
  }
  absl::StatusOr<std::string> translated = DialectTranslator(pattern).Translate();
  if (!translated.ok()) {
    return absl::InvalidArgumentError(
        StrCat(what, ": ", std::string(translated.status().message())));
  }
  const CompileContextPtr context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 64);
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  CodePtr code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &error_offset, context.get()));
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        StrCat(what, ": regular expression: ", PcreMessage(error), " at byte ", error_offset));
  }
  // Where the machine forbids it, PCRE2 interprets: slower, with the same results.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return std::unique_ptr<Regex>(new Regex(std::make_unique<Code>(Code{std::move(code)})));
}

std::unique_ptr<Regex> Regex::CompileOrDie(std::string_view pattern) {
  absl::StatusOr<std::unique_ptr<Regex>> regex = Compile(pattern, "built-in");
  if (!regex.ok()) std::abort();
  return std::move(regex).value();
}

absl::Status Regex::FindAll(std::string_view text, std::vector<Span>* matches) const {
  matches->clear();
  if (text.empty()) return absl::OkStatus();
  Matcher matcher(code_->pcre.get());
  std::optional<size_t> last_end;
  size_t begin = 0;
  while (begin <= text.size()) {
    const int result = matcher.Match(text, begin);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::ResourceExhaustedError(
          StrCat("regular expression on the text behind byte ", begin, ": ", PcreMessage(result)));
    }
    const Span match = matcher.match();
    if (match.begin == match.end && match.end == last_end) {
      // An empty match at the end of the last one does not count: look from the next character.
      if (begin == text.size()) break;
      NextCodePoint(text, &begin);
      continue;
    }
    matches->push_back(match);
    begin = match.end;
    last_end = match.end;
  }
  return absl::OkStatus();
}

}  // namespace moesaic
