#include "memory/pack_format.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "base/checked_math.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "memory/stripe_layout.h"
#include "xxhash.h"

namespace moesaic {
namespace {

static_assert(std::endian::native == std::endian::little, "packs are little-endian");

constexpr std::array<char, 8> kMagic = {'\x89', 'M', 'O', 'E', 'P', 'K', '\r', '\n'};

enum State : uint32_t { kBuilding = 1, kComplete = 2 };
enum StoredDType : uint32_t { kStoredFloat32 = 1, kStoredBFloat16 = 2, kStoredFloat16 = 3 };

// The header's bytes. What follows it up to the checksum, the last 8 bytes of the 4096, is zero.
struct RawHeader {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t state;
  uint64_t fingerprint_high;
  uint64_t fingerprint_low;
  uint32_t dtype;
  uint32_t gated;
  int64_t hidden;
  int64_t units;
  int64_t units_per_stripe;
  int64_t stripe_bytes;
  int64_t slot_bytes;
  int32_t num_layers;
  int32_t num_experts;
  int32_t stripes_per_expert;
  int32_t scale_block;
  std::array<char, kMaxInnerOrder + 1> inner_order;
};
static_assert(sizeof(RawHeader) == 8 + 8 + 16 + 8 + 40 + 16 + 48, "no padding");

constexpr size_t kChecksumOffset = kPackHeaderBytes - sizeof(uint64_t);

uint32_t Stored(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return kStoredFloat32;
    case DType::kBFloat16:
      return kStoredBFloat16;
    case DType::kFloat16:
      return kStoredFloat16;
  }
  return 0;
}

std::optional<DType> LoadDType(uint32_t stored) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    if (stored == Stored(dtype)) return dtype;
  }
  return std::nullopt;
}

bool IsOrderName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxInnerOrder &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
                  c == '-';
         });
}

}  // namespace

std::string PackFileName(const PackIdentity& identity) {
  return StrCat("experts-", identity.model.Hex(), "-", DTypeName(identity.dtype), "-",
                identity.inner_order, ".pack");
}

StripeId PackGeometry::Id(int64_t index) const {
  const int64_t expert = index / shape.stripes_per_expert;
  return {.expert = {.layer = static_cast<int32_t>(expert / shape.num_experts),
                     .index = static_cast<int32_t>(expert % shape.num_experts)},
          .stripe = static_cast<int32_t>(index % shape.stripes_per_expert)};
}

absl::StatusOr<PackGeometry> MakePackGeometry(const ExpertStore::Shape& shape) {
  if (shape.num_layers < 1 || shape.num_experts < 1 || shape.stripes_per_expert < 1 ||
      shape.slot_bytes < 1 || shape.slot_bytes % kStripeAlignmentBytes != 0) {
    return absl::InvalidArgumentError(StrCat(
        "no pack can hold ", shape.num_layers, " layers x ", shape.num_experts, " experts x ",
        shape.stripes_per_expert, " stripes of ", shape.slot_bytes, " bytes"));
  }
  // Slots are larger than their table entries, so what counts the slots can count the table.
  MOESAIC_ASSIGN_OR_RETURN(const int64_t data_bytes, ExpertStore::TotalBytes(shape));
  PackGeometry geometry{.shape = shape};
  geometry.row_entries = int64_t{shape.num_experts} * shape.stripes_per_expert + 1;
  geometry.data_offset = RoundUp(geometry.RowOffset(shape.num_layers), kStripeAlignmentBytes);
  const std::optional<int64_t> file_bytes = CheckedAdd(geometry.data_offset, data_bytes);
  if (!file_bytes) return absl::InvalidArgumentError("the packed experts are too large");
  geometry.file_bytes = *file_bytes;
  return geometry;
}

std::vector<std::byte> SerializePackHeader(const PackHeader& header) {
  const PackIdentity& identity = header.identity;
  RawHeader raw{.magic = kMagic,
                .version = kPackFormatVersion,
                .state = header.complete ? kComplete : kBuilding,
                .fingerprint_high = identity.model.high,
                .fingerprint_low = identity.model.low,
                .dtype = Stored(identity.dtype),
                .gated = identity.gated ? 1u : 0u,
                .hidden = identity.hidden,
                .units = identity.units,
                .units_per_stripe = identity.units_per_stripe,
                .stripe_bytes = identity.stripe_bytes,
                .slot_bytes = identity.shape.slot_bytes,
                .num_layers = identity.shape.num_layers,
                .num_experts = identity.shape.num_experts,
                .stripes_per_expert = identity.shape.stripes_per_expert,
                .scale_block = identity.scale_block,
                .inner_order = {}};
  std::copy_n(identity.inner_order.begin(), std::min(identity.inner_order.size(), kMaxInnerOrder),
              raw.inner_order.begin());
  std::vector<std::byte> bytes(kPackHeaderBytes);
  std::memcpy(bytes.data(), &raw, sizeof(raw));
  const uint64_t checksum = XXH3_64bits(bytes.data(), kChecksumOffset);
  std::memcpy(bytes.data() + kChecksumOffset, &checksum, sizeof(checksum));
  return bytes;
}

absl::StatusOr<PackHeader> ParsePackHeader(std::span<const std::byte> bytes,
                                           std::string_view what) {
  const auto damaged = [&](std::string_view problem) {
    return absl::DataLossError(StrCat(what, ": ", problem));
  };
  if (bytes.size() < static_cast<size_t>(kPackHeaderBytes)) {
    return damaged("too short for a header of packed experts");
  }
  RawHeader raw;
  std::memcpy(&raw, bytes.data(), sizeof(raw));
  if (raw.magic != kMagic) return damaged("not a file of packed experts");
  uint64_t checksum = 0;
  std::memcpy(&checksum, bytes.data() + kChecksumOffset, sizeof(checksum));
  if (checksum != XXH3_64bits(bytes.data(), kChecksumOffset)) {
    return damaged("the header is damaged (wrong checksum)");
  }
  if (raw.version != kPackFormatVersion) {
    return absl::FailedPreconditionError(StrCat(what, ": has format version ", raw.version,
                                                ", this server reads ", kPackFormatVersion));
  }
  const std::optional<DType> dtype = LoadDType(raw.dtype);
  const auto order_end = std::find(raw.inner_order.begin(), raw.inner_order.end(), '\0');
  const std::string inner_order(raw.inner_order.begin(), order_end);
  if ((raw.state != kBuilding && raw.state != kComplete) || !dtype || raw.gated > 1 ||
      raw.hidden < 1 || raw.units < 1 || raw.units_per_stripe < 1 || raw.scale_block < 0 ||
      raw.stripe_bytes < 1 || raw.stripe_bytes > raw.slot_bytes || !IsOrderName(inner_order)) {
    return damaged("the header holds a value that none has");
  }
  PackHeader header{
      .identity = {.model = {.high = raw.fingerprint_high, .low = raw.fingerprint_low},
                   .dtype = *dtype,
                   .gated = raw.gated == 1,
                   .hidden = raw.hidden,
                   .units = raw.units,
                   .units_per_stripe = raw.units_per_stripe,
                   .stripe_bytes = raw.stripe_bytes,
                   .scale_block = raw.scale_block,
                   .shape = {.num_layers = raw.num_layers,
                             .num_experts = raw.num_experts,
                             .stripes_per_expert = raw.stripes_per_expert,
                             .slot_bytes = raw.slot_bytes},
                   .inner_order = inner_order},
      .complete = raw.state == kComplete};
  if (!MakePackGeometry(header.identity.shape).ok()) return damaged("its shape is impossible");
  return header;
}

uint64_t StripeChecksum(int64_t index, std::span<const std::byte> slot) {
  return XXH3_64bits_withSeed(slot.data(), slot.size(), static_cast<uint64_t>(index));
}

uint64_t RowChecksum(const PackIdentity& identity,
                     int32_t layer,
                     std::span<const uint64_t> stripe_checksums) {
  const std::vector<std::byte> header =
      SerializePackHeader({.identity = identity, .complete = false});
  const uint64_t seed =
      XXH3_64bits_withSeed(header.data(), header.size(), static_cast<uint64_t>(layer));
  return XXH3_64bits_withSeed(stripe_checksums.data(), stripe_checksums.size_bytes(), seed);
}

}  // namespace moesaic
