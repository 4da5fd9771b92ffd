#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

// Below U+0300 there is no combining mark, so such a text is its own NFC.
constexpr char32_t kFirstCombiningMark = 0x300;

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
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool IsNumeric(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool IsMark(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool IsWordCharacter(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
         category == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D ||
         (c >= 0x24B6 && c <= 0x24E9);  // circled letters are alphabetic symbols
}

void LowercaseText(std::string* text) {
  std::string lower;
  lower.reserve(text->size());
  for (size_t pos = 0; pos < text->size();) {
    const char32_t c = NextCodePoint(*text, &pos);
    AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), &lower);
    if (c == 0x130) AppendUtf8(0x307, &lower);  // the only lower case of two characters
  }
  *text = std::move(lower);
}

void NormalizeText(NormalForm form, std::string* text) {
  if (IsOwnNormalForm(form, *text)) return;
  const bool compatibility = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatibility ? UTF8PROC_COMPAT : 0));

  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(text->size());
  for (size_t pos = 0; pos < text->size();) {
    const auto c = static_cast<utf8proc_int32_t>(NextCodePoint(*text, &pos));
    if (c < 0x80) {
      code_points.push_back(c);
      continue;
    }
    utf8proc_int32_t decomposed[32];  // the longest decomposition, of U+FDFA, has 18
    int boundary_class = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(c, decomposed, std::size(decomposed), options, &boundary_class);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(std::size(decomposed))) {
      code_points.push_back(c);
    } else {
      code_points.insert(code_points.end(), decomposed, decomposed + count);
    }
  }
  SortCombiningMarks(&code_points);
  if (compose) {
    const utf8proc_ssize_t count = utf8proc_normalize_utf32(
        code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    code_points.resize(static_cast<size_t>(std::max<utf8proc_ssize_t>(count, 0)));
  }
  text->clear();
  for (const utf8proc_int32_t c : code_points) AppendUtf8(static_cast<char32_t>(c), text);
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
