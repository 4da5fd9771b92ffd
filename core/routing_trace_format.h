#pragma once

// The bytes of a routing trace (docs/routing-traces.md), for its writer and its reader.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace moesaic::routing_trace_format {

static_assert(std::endian::native == std::endian::little, "traces are stored little-endian");

inline constexpr std::string_view kMagic = "MOETRACE";
inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kFlagWeights = 1;

// Before the model's name: magic, version, flags, fingerprint, layers, experts, top-k, name bytes.
// The name and a CRC-32 of all before it follow.
inline constexpr size_t kFixedHeaderBytes = 8 + 4 + 4 + 8 + 4 + 4 + 4 + 4;
inline constexpr uint32_t kMaxLayers = 65536;
inline constexpr uint32_t kMaxExperts = 65536;  // ids fit in 16 bits
inline constexpr uint32_t kMaxTopK = 1024;
inline constexpr uint32_t kMaxNameBytes = 4096;
inline constexpr uint32_t kMaxTagBytes = 1024;

// A section: kind, payload bytes, CRC-32 of the payload, payload.
inline constexpr size_t kSectionHeaderBytes = 12;
inline constexpr uint32_t kMaxSectionBytes = 256u << 20;
enum SectionKind : uint32_t { kSectionRecords = 1, kSectionEnd = 2 };
// Payload of the end: number of records and of rows.
inline constexpr size_t kEndBytes = 16;

// The payload of a records section is a sequence of these.
enum Operation : uint8_t { kOpRequest = 0, kOpRecord = 1, kOpRecordSameRows = 2 };

// The experts of a row ascend, so the gaps between them are stored: the gap less one, divided by
// 2^bits, in unary, then its low `bits`. The choice suits experts that are chosen about equally
// often, for which gaps average num_experts / top_k.
inline uint32_t GapBits(uint32_t num_experts, uint32_t top_k) {
  const uint32_t mean = num_experts / top_k;
  return mean < 2 ? 0 : static_cast<uint32_t>(std::bit_width(mean)) - 2;
}

}  // namespace moesaic::routing_trace_format
