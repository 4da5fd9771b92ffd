#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace moesaic {

// Properties and normal forms of Unicode, as far as tokenizers need them.

bool IsWhiteSpace(char32_t c);
bool IsPunctuation(char32_t c);    // ASCII punctuation and symbols, and the P categories
bool IsNumeric(char32_t c);        // the N categories
bool IsMark(char32_t c);           // the M categories
bool IsWordCharacter(char32_t c);  // \w of UTS #18: letters, marks, decimal digits, connectors

// Lower case of each character by itself; the final sigma has no rule of its own.
void LowercaseText(std::string* text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
// In time n log n: a run of combining marks costs a sort. `text` must be UTF-8.
void NormalizeText(NormalForm form, std::string* text);

// End of the extended grapheme cluster that begins at text[begin].
size_t GraphemeEnd(std::string_view text, size_t begin);

}  // namespace moesaic
