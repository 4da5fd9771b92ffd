#pragma once

#include <span>
#include <string_view>

namespace moesaic {

// Where the Unicode of Hugging Face `tokenizers` is not that of PCRE2 and utf8proc. Both tables are
// in ascending order.

struct CodePointRange {
  char32_t first;
  char32_t last;
};

struct CategoryRange {
  char32_t first;
  char32_t last;
  char category[2];  // general category: 'L', 'u'
};

// Characters that Unicode 15 to 17 added: PCRE2 takes them for unassigned.
std::span<const CategoryRange> CategoriesSinceUnicode14();

// Characters that Unicode 10 to 14 added and that have a normal form or are marks: the reference's
// tables of normal forms are those of Unicode 9, to which these are symbols without any.
std::span<const CodePointRange> WithoutNormalForms();

}  // namespace moesaic
