#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace moesaic {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// The code point at text[*pos], which moves behind it. `text` must be UTF-8.
inline char32_t NextCodePoint(std::string_view text, size_t* pos) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[*pos + i]); };
  const unsigned char lead = byte(0);
  char32_t code_point = lead;
  size_t length = 1;
  if (lead >= 0xF0) {
    code_point =
        (lead & 0x07u) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 | (byte(3) & 0x3Fu);
    length = 4;
  } else if (lead >= 0xE0) {
    code_point = (lead & 0x0Fu) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu);
    length = 3;
  } else if (lead >= 0xC0) {
    code_point = (lead & 0x1Fu) << 6 | (byte(1) & 0x3Fu);
    length = 2;
  }
  *pos += length;
  return code_point;
}

// The code point that ends at text[end); `end` > 0, `text` must be UTF-8.
char32_t LastCodePoint(std::string_view text, size_t end);

void AppendUtf8(char32_t code_point, std::string* out);

// What the first bytes of a text are.
enum class Utf8Prefix { kCharacter, kIncomplete, kInvalid };
struct Utf8Scan {
  Utf8Prefix kind;
  // Bytes of the character, of its valid beginning (kIncomplete: all of `bytes`), or of the longest
  // sequence that begins like a character and is none (kInvalid: at least 1).
  size_t length;
};
Utf8Scan ScanUtf8(std::string_view bytes);  // `bytes` not empty

// Offset of the first byte that begins no complete character; none when `text` is UTF-8.
std::optional<size_t> FindInvalidUtf8(std::string_view text);

}  // namespace moesaic
