#include "tokenizer/byte_level.h"

#include <array>

#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

struct ByteLevelTable {
  std::array<std::array<char, 2>, 256> spelling{};
  std::array<uint8_t, 256> length{};
  std::array<int16_t, 512> byte_of{};  // by character; -1: none

  ByteLevelTable() {
    byte_of.fill(-1);
    char32_t next = 256;  // bytes without a printable Latin-1 character take what follows Latin-1
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const char32_t c = printable ? static_cast<char32_t>(byte) : next++;
      std::string utf8;
      AppendUtf8(c, &utf8);
      const auto index = static_cast<size_t>(byte);
      length[index] = static_cast<uint8_t>(utf8.size());
      for (size_t i = 0; i < utf8.size(); ++i) spelling[index][i] = utf8[i];
      byte_of[c] = static_cast<int16_t>(byte);
    }
  }
};

const ByteLevelTable& Table() {
  static const ByteLevelTable table;
  return table;
}

}  // namespace

void AppendByteLevel(std::string_view text, std::string* out) {
  const ByteLevelTable& table = Table();
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    out->append(table.spelling[byte].data(), table.length[byte]);
  }
}

std::optional<uint8_t> ByteOfByteLevel(char32_t c) {
  const ByteLevelTable& table = Table();
  if (c >= table.byte_of.size() || table.byte_of[c] < 0) return std::nullopt;
  return static_cast<uint8_t>(table.byte_of[c]);
}

}  // namespace moesaic
