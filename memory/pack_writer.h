#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/aligned_buffer.h"
#include "base/unique_fd.h"
#include "core/ids.h"
#include "memory/expert_pack.h"
#include "memory/expert_sink.h"
#include "memory/pack_format.h"

namespace moesaic {

// Holds the right to write one pack: other processes that want it wait. Given back when destroyed,
// or when the process ends.
class PackLock {
 public:
  // Waits as long as another holds it, and says so in the log. PermissionDenied when the folder
  // cannot be written to.
  static absl::StatusOr<PackLock> Acquire(const std::filesystem::path& pack_path);

 private:
  UniqueFd descriptor_;
};

// Writes a pack into PATH.partial, and goes on where another process stopped: a layer that it had
// committed is kept. The order that makes a power cut harmless: the stripes of a layer, fdatasync,
// its row; after the last row fdatasync, the finished header, fsync, rename to PATH, fsync of the
// folder.
//
// In memory: one slot per worker.
class PackWriter : public ExpertSink {
 public:
  // ResourceExhausted, naming the folder and the bytes needed, when it has too little room.
  static absl::StatusOr<std::unique_ptr<PackWriter>> Create(const std::filesystem::path& path,
                                                            const PackIdentity& identity,
                                                            PackLock lock,
                                                            int num_workers);

  bool HasLayer(int32_t layer) const override { return committed_[layer]; }
  std::byte* BeginStripe(StripeId id, int worker) override;
  absl::Status FinishStripe(StripeId id, int worker) override;
  absl::Status FinishLayer(int32_t layer) override;

  // After every layer: the pack is complete, under its own name, and unlocked.
  absl::StatusOr<std::shared_ptr<const ExpertPack>> Finish();

 private:
  PackWriter(std::filesystem::path path,
             PackIdentity identity,
             PackGeometry geometry,
             PackLock lock);

  absl::Status Open();
  // Takes over an unfinished pack of this identity, if that is what the file is.
  void Resume();
  absl::Status StartAnew();
  absl::Status CheckSpace() const;
  absl::Status Write(int64_t offset, std::span<const std::byte> bytes) const;
  absl::Status Sync() const;
  // What the system said about `doing`, as a status.
  absl::Status Error(int error, std::string_view doing) const;

  const std::filesystem::path path_;
  const std::filesystem::path partial_path_;
  const PackIdentity identity_;
  const PackGeometry geometry_;
  PackLock lock_;
  UniqueFd file_;
  UniqueFd direct_;  // the same file past the page cache, where that is possible
  std::vector<bool> committed_;
  std::vector<uint64_t> checksums_;   // by stripe index of the layer being packed
  std::vector<AlignedBuffer> slots_;  // per worker
};

// A pack to read, or the one to write first.
struct PackSession {
  std::shared_ptr<const ExpertPack> pack;
  std::unique_ptr<PackWriter> writer;
};
// Opens the pack of `identity` in `folder`, or, where there is none or it cannot be used (the log
// says why), starts or resumes writing it. Makes the folder. Waits for another process that is
// writing it. A usable pack in a folder that cannot be written to is opened; any other is refused
// with PermissionDenied.
absl::StatusOr<PackSession> OpenOrCreatePack(const std::filesystem::path& folder,
                                             const PackIdentity& identity,
                                             int num_workers);

}  // namespace moesaic
