#include "memory/model_fingerprint.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "xxhash.h"

namespace moesaic {
namespace {

// Hashes parts with their lengths, so that no two lists of parts run together.
class FingerprintHasher {
 public:
  explicit FingerprintHasher(std::string_view kind) { Add(kind); }

  void Add(std::string_view text) { Add(std::as_bytes(std::span(text))); }
  void Add(std::span<const std::byte> bytes) {
    AddNumber(bytes.size());
    parts_.insert(parts_.end(), bytes.begin(), bytes.end());
  }
  void AddNumber(uint64_t number) {
    const auto bytes = std::as_bytes(std::span(&number, 1));
    parts_.insert(parts_.end(), bytes.begin(), bytes.end());
  }
  // For a part that is too large to keep.
  void AddDigest(std::span<const std::byte> bytes) {
    const XXH128_hash_t digest = XXH3_128bits(bytes.data(), bytes.size());
    AddNumber(digest.high64);
    AddNumber(digest.low64);
  }
  Fingerprint Finish() const {
    const XXH128_hash_t digest = XXH3_128bits(parts_.data(), parts_.size());
    return {.high = digest.high64, .low = digest.low64};
  }

 private:
  std::vector<std::byte> parts_;
};

absl::Status AddConfig(const std::filesystem::path& folder, FingerprintHasher& hasher) {
  constexpr std::streamsize kMaxConfigBytes = 16 << 20;
  const std::filesystem::path path = folder / "config.json";
  std::ifstream file(path, std::ios::binary);
  std::string bytes(kMaxConfigBytes + 1, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (file.bad() || file.gcount() == 0 || file.gcount() > kMaxConfigBytes) {
    return absl::InvalidArgumentError(StrCat(path.string(), ": cannot be read"));
  }
  bytes.resize(file.gcount());
  hasher.Add(bytes);
  return absl::OkStatus();
}

}  // namespace

std::string Fingerprint::Hex() const { return absl::StrFormat("%016x%016x", high, low); }

absl::StatusOr<Fingerprint> CheckpointFingerprint(const std::filesystem::path& folder,
                                                  const Checkpoint& checkpoint) {
  FingerprintHasher hasher("checkpoint");
  MOESAIC_RETURN_IF_ERROR(AddConfig(folder, hasher));
  for (const Checkpoint::FileInfo& file : checkpoint.Files()) {
    hasher.Add(file.name);
    hasher.AddNumber(file.info.bytes);
    hasher.AddNumber(static_cast<uint64_t>(file.info.modified_ns));
    hasher.AddDigest(file.info.header);
  }
  return hasher.Finish();
}

absl::StatusOr<Fingerprint> GeneratedFingerprint(const std::filesystem::path& folder,
                                                 uint64_t seed) {
  FingerprintHasher hasher("generated");
  MOESAIC_RETURN_IF_ERROR(AddConfig(folder, hasher));
  hasher.AddNumber(seed);
  return hasher.Finish();
}

}  // namespace moesaic
