#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "core/ids.h"
#include "memory/pack_format.h"

namespace moesaic {

// The mark that MarkDamaged() leaves.
std::filesystem::path DamageMarkPath(const std::filesystem::path& pack_path);

// A finished file of packed experts: the table of its checksums, and where its stripes lie.
//
// Owner: the store that reads it. Thread: any, read-only. The file may be replaced or deleted while
// it is open here.
class ExpertPack {
 public:
  // NotFound when there is no such file; FailedPrecondition when it is of another model, layout or
  // format; DataLoss when its header, table or size is damaged; else what the system says. The
  // stripes are not read: each is checked when it is.
  static absl::StatusOr<std::shared_ptr<const ExpertPack>> Open(const std::filesystem::path& path,
                                                                const PackIdentity& identity);

  const std::filesystem::path& path() const { return path_; }
  const PackGeometry& geometry() const { return geometry_; }
  const ExpertStore::Shape& shape() const { return geometry_.shape; }
  // Nothing is read through it but by a DiskReader, so that this one may change its mode.
  int descriptor() const { return descriptor_.get(); }

  // OK when `slot` holds the stripe as it was packed, else DataLoss that says which it is.
  absl::Status Verify(int64_t index, std::span<const std::byte> slot) const;
  // "PATH: layer 3, expert 7, stripe 0".
  std::string Describe(int64_t index) const;

  // Leaves a mark beside the file by which the next server that opens it packs it anew. Says what
  // came of it in the log.
  void MarkDamaged() const;

 private:
  ExpertPack() = default;

  std::filesystem::path path_;
  UniqueFd descriptor_;
  PackGeometry geometry_;
  std::vector<uint64_t> rows_;  // the table as it is in the file
};

}  // namespace moesaic
