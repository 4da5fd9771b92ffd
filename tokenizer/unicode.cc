#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <span>
#include <vector>

#include "tokenizer/unicode_tables.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

// Below U+0300 there is no combining mark, so such a text is its own NFC.
constexpr char32_t kFirstCombiningMark = 0x300;

// The range of an ascending table that holds `c`; null when none does.
template <typename Range>
const Range* FindRange(std::span<const Range> table, char32_t c) {
  const auto after =
      std::upper_bound(table.begin(), table.end(), c,
                       [](char32_t value, const Range& range) { return value < range.first; });
  if (after == table.begin()) return nullptr;
  const Range& range = *std::prev(after);
  return c <= range.last ? &range : nullptr;
}

// Whether the reference's tables of normal forms, those of Unicode 9, do not know `c`.
bool IsInert(char32_t c) {
  return c >= kFirstCombiningMark && (FindRange(WithoutNormalForms(), c) != nullptr ||
                                      FindRange(CategoriesSinceUnicode14(), c) != nullptr);
}

// The general category as two letters, by Unicode 17.
std::string_view Category(char32_t c) {
  if (c >= 0x800) {
    if (const CategoryRange* range = FindRange(CategoriesSinceUnicode14(), c)) {
      return {range->category, 2};
    }
  }
  return utf8proc_category_string(static_cast<utf8proc_int32_t>(c));
}

bool IsOwnNormalForm(NormalForm form, std::string_view text) {
  const char32_t limit = form == NormalForm::kNfc ? kFirstCombiningMark : 0x80;
  const unsigned char limit_lead = limit == 0x80 ? 0x80 : 0xCC;  // lead byte of U+0300
  return std::all_of(text.begin(), text.end(), [&](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < limit_lead;
  });
}

int CombiningClass(utf8proc_int32_t c) {
  return c < static_cast<utf8proc_int32_t>(kFirstCombiningMark)
             ? 0
             : utf8proc_get_property(c)->combining_class;
}

// The canonical order of each run of combining marks. utf8proc's own sorting takes quadratic time
// on long runs.
void SortCombiningMarks(std::vector<utf8proc_int32_t>* code_points) {
  auto run = code_points->begin();
  const auto end = code_points->end();
  while (run != end) {
    if (CombiningClass(*run) == 0) {
      ++run;
      continue;
    }
    auto run_end = run;
    while (run_end != end && CombiningClass(*run_end) != 0) ++run_end;
    if (run_end - run > 1) {
      std::stable_sort(run, run_end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
        return CombiningClass(a) < CombiningClass(b);
      });
    }
    run = run_end;
  }
}

void AppendDecomposition(utf8proc_int32_t c,
                         utf8proc_option_t options,
                         std::vector<utf8proc_int32_t>* code_points) {
  utf8proc_int32_t decomposed[32];  // the longest decomposition, of U+FDFA, has 18
  int boundary_class = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(c, decomposed, std::size(decomposed), options, &boundary_class);
  if (count < 0 || count > static_cast<utf8proc_ssize_t>(std::size(decomposed))) {
    code_points->push_back(c);
  } else {
    code_points->insert(code_points->end(), decomposed, decomposed + count);
  }
}

void Compose(std::vector<utf8proc_int32_t>* code_points) {
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(
      code_points->data(), static_cast<utf8proc_ssize_t>(code_points->size()),
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  code_points->resize(static_cast<size_t>(std::max<utf8proc_ssize_t>(count, 0)));
}

}  // namespace

bool IsWhiteSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsPunctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
           (c >= 0x7B && c <= 0x7E);
  }
  return Category(c)[0] == 'P';
}

bool IsNumeric(char32_t c) { return Category(c)[0] == 'N'; }

bool IsMark(char32_t c) {
  if (c == 0x1CF2 || c == 0x1CF3) return true;  // letters since Unicode 12
  return Category(c)[0] == 'M' && !IsInert(c);
}

bool IsWordCharacter(char32_t c) {
  const std::string_view category = Category(c);
  if (category[0] == 'L' || category[0] == 'M') return true;
  if (category == "Nd" || category == "Nl" || category == "Pc") return true;
  // Joiners, and the letters among the symbols.
  return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
         (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189);
}

namespace {

char32_t LowercaseOf(char32_t c) {
  // What utf8proc's Unicode does not have yet.
  switch (c) {
    case 0x1C89:
    case 0xA7CC:
    case 0xA7CE:
    case 0xA7D2:
    case 0xA7D4:
    case 0xA7DA:
      return c + 1;
    case 0xA7CB:
      return 0x264;
    case 0xA7DC:
      return 0x19B;
    default:
      break;
  }
  if (c >= 0x10D50 && c <= 0x10D65) return c + 0x20;
  if (c >= 0x16EA0 && c <= 0x16EB8) return c + 0x1B;
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

}  // namespace

void LowercaseText(std::string* text) {
  std::string lower;
  lower.reserve(text->size());
  for (size_t pos = 0; pos < text->size();) {
    const char32_t c = NextCodePoint(*text, &pos);
    if (c == 0x130) {
      lower += "i\u0307";  // the only lower case of two characters
    } else {
      AppendUtf8(LowercaseOf(c), &lower);
    }
  }
  *text = std::move(lower);
}

void NormalizeText(NormalForm form, std::string* text) {
  if (IsOwnNormalForm(form, *text)) return;
  const bool compatibility = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatibility ? UTF8PROC_COMPAT : 0));

  std::string normalized;
  normalized.reserve(text->size());
  std::vector<utf8proc_int32_t> code_points;  // since the last inert character
  const auto flush = [&] {
    SortCombiningMarks(&code_points);
    if (compose) Compose(&code_points);
    for (const utf8proc_int32_t c : code_points) {
      AppendUtf8(static_cast<char32_t>(c), &normalized);
    }
    code_points.clear();
  };
  for (size_t pos = 0; pos < text->size();) {
    const char32_t c = NextCodePoint(*text, &pos);
    if (c < 0x80) {
      code_points.push_back(static_cast<utf8proc_int32_t>(c));
    } else if (IsInert(c)) {
      flush();
      AppendUtf8(c, &normalized);
    } else {
      AppendDecomposition(static_cast<utf8proc_int32_t>(c), options, &code_points);
    }
  }
  flush();
  *text = std::move(normalized);
}

size_t GraphemeEnd(std::string_view text, size_t begin) {
  size_t end = begin;
  auto previous = static_cast<utf8proc_int32_t>(NextCodePoint(text, &end));
  utf8proc_int32_t state = 0;
  while (end < text.size()) {
    size_t next_end = end;
    const auto next = static_cast<utf8proc_int32_t>(NextCodePoint(text, &next_end));
    if (utf8proc_grapheme_break_stateful(previous, next, &state)) break;
    previous = next;
    end = next_end;
  }
  return end;
}

}  // namespace moesaic
