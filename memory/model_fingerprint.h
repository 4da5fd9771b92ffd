#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"

namespace moesaic {

// Stands for a model's weights without reading them.
struct Fingerprint {
  uint64_t high = 0;
  uint64_t low = 0;

  bool operator==(const Fingerprint&) const = default;
  std::string Hex() const;
};

// From the bytes of config.json and, of each safetensors file, its name, size, time of modification
// and header: a model that was changed or copied anew without its times gets another. The errors
// are of reading config.json.
absl::StatusOr<Fingerprint> CheckpointFingerprint(const std::filesystem::path& folder,
                                                  const Checkpoint& checkpoint);

// Of weights that are generated from config.json and a seed.
absl::StatusOr<Fingerprint> GeneratedFingerprint(const std::filesystem::path& folder,
                                                 uint64_t seed);

}  // namespace moesaic
