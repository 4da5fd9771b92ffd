#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace moesaic {

// GPT-2's spelling of bytes as printable characters: byte-level vocabularies are written in it.

// Appends the characters that stand for the bytes of `text`.
void AppendByteLevel(std::string_view text, std::string* out);

// The byte `c` stands for; none when it stands for no byte.
std::optional<uint8_t> ByteOfByteLevel(char32_t c);

}  // namespace moesaic
