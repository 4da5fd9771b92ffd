#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace moesaic {

namespace crc32_internal {

constexpr std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320u : 0);
    table[i] = value;
  }
  return table;
}

inline constexpr std::array<uint32_t, 256> kTable = MakeTable();

}  // namespace crc32_internal

// CRC-32 as in zip and PNG, for the sections of small files: it finds damage, not forgery.
constexpr uint32_t Crc32(std::span<const std::byte> bytes) {
  uint32_t value = 0xffffffffu;
  for (const std::byte byte : bytes) {
    value = (value >> 8) ^ crc32_internal::kTable[(value ^ static_cast<uint32_t>(byte)) & 0xffu];
  }
  return ~value;
}

}  // namespace moesaic
