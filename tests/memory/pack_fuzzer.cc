// Any bytes as the header of a pack: refused, or a header that survives being written again.

#include <cstdlib>
#include <cstring>
#include <vector>

#include "memory/pack_format.h"
#include "xxhash.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moesaic;
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  static_cast<void>(ParsePackHeader(bytes, "fuzz"));
  // Past the checksum, which no mutation gets right.
  bytes.resize(kPackHeaderBytes);
  const size_t end = bytes.size() - sizeof(uint64_t);
  const uint64_t checksum = XXH3_64bits(bytes.data(), end);
  std::memcpy(bytes.data() + end, &checksum, sizeof(checksum));
  const absl::StatusOr<PackHeader> header = ParsePackHeader(bytes, "fuzz");
  if (!header.ok()) return 0;
  const absl::StatusOr<PackHeader> again = ParsePackHeader(SerializePackHeader(*header), "again");
  if (!again.ok() || again->identity != header->identity) std::abort();
  const absl::StatusOr<PackGeometry> geometry = MakePackGeometry(header->identity.shape);
  if (!geometry.ok() || geometry->file_bytes <= geometry->data_offset) std::abort();
  const int64_t last = geometry->num_stripes() - 1;
  if (geometry->Index(geometry->Id(last)) != last ||
      geometry->StripeOffset(last) + geometry->shape.slot_bytes != geometry->file_bytes) {
    std::abort();
  }
  return 0;
}
