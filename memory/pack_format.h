#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/dtype.h"
#include "core/ids.h"
#include "memory/expert_store.h"
#include "memory/model_fingerprint.h"

namespace moesaic {

// The file of packed experts, little-endian:
//   header   4096 bytes: what the pack holds, its state, and a checksum of all that
//   table    a row per layer: the checksum of each of its stripes, then one of the row itself
//   stripes  slots of slot_bytes from a multiple of 4 KiB on, by layer, expert, stripe
// The row of a layer is its commit mark: it is written once the layer's stripes are on the disk, so
// an unfinished file holds exactly the layers whose rows are valid. A finished one has all rows.

inline constexpr uint32_t kPackFormatVersion = 1;
inline constexpr int64_t kPackHeaderBytes = 4096;

// Everything that has to agree for the stripes of a pack to be used as they are.
struct PackIdentity {
  Fingerprint model = {};
  DType dtype = DType::kFloat32;
  bool gated = true;
  int64_t hidden = 0;
  int64_t units = 0;             // of an expert
  int64_t units_per_stripe = 0;  // S
  int64_t stripe_bytes = 0;      // of a slot; the rest is zero
  int32_t scale_block = 0;       // elements that share a scale; 0: not quantised
  ExpertStore::Shape shape = {};
  std::string inner_order = {};  // of the elements in a stripe, as the kernels name it

  bool operator==(const PackIdentity&) const = default;
};

// At most this many characters of [a-z0-9_.-] name an inner order.
inline constexpr size_t kMaxInnerOrder = 47;

// "experts-FINGERPRINT-bfloat16-panel32.pack": one file per model and layout in a folder.
std::string PackFileName(const PackIdentity& identity);

// Where things lie in a file of `shape`.
struct PackGeometry {
  ExpertStore::Shape shape = {};
  int64_t row_entries = 0;  // checksums of a layer's stripes, and the row's own
  int64_t data_offset = 0;
  int64_t file_bytes = 0;

  int64_t row_bytes() const { return row_entries * static_cast<int64_t>(sizeof(uint64_t)); }
  int64_t layer_stripes() const { return row_entries - 1; }
  int64_t num_stripes() const { return shape.num_layers * layer_stripes(); }
  int64_t RowOffset(int32_t layer) const { return kPackHeaderBytes + layer * row_bytes(); }
  int64_t Index(StripeId id) const {
    return (int64_t{id.expert.layer} * shape.num_experts + id.expert.index) *
               shape.stripes_per_expert +
           id.stripe;
  }
  StripeId Id(int64_t index) const;
  int64_t StripeOffset(int64_t index) const { return data_offset + index * shape.slot_bytes; }
};
// InvalidArgument when the shape has a size that is not positive, slots that are not a multiple of
// 4 KiB, or more bytes than can be counted.
absl::StatusOr<PackGeometry> MakePackGeometry(const ExpertStore::Shape& shape);

struct PackHeader {
  PackIdentity identity;
  bool complete = false;
};
std::vector<std::byte> SerializePackHeader(const PackHeader& header);
// DataLoss when the bytes are not a whole header, FailedPrecondition for another format version.
// `what` names the file in errors.
absl::StatusOr<PackHeader> ParsePackHeader(std::span<const std::byte> bytes, std::string_view what);

// Of the bytes of the stripe `index`; the index takes part, so that a stripe in another's place is
// found out too.
uint64_t StripeChecksum(int64_t index, std::span<const std::byte> slot);
// Of the first row_entries - 1 entries of a row; the file's identity takes part.
uint64_t RowChecksum(const PackIdentity& identity,
                     int32_t layer,
                     std::span<const uint64_t> stripe_checksums);

}  // namespace moesaic
