#include "memory/pack_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <utility>

#include "absl/time/clock.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "memory/file_io.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kLockPoll = absl::Milliseconds(100);
constexpr absl::Duration kLockReport = absl::Seconds(10);

absl::Status SyncFolder(const fs::path& folder) {
  const UniqueFd descriptor(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor.valid() || fsync(descriptor.get()) != 0) {
    return SystemError(errno, folder.string());
  }
  return absl::OkStatus();
}

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  // Where it exists and cannot be looked into, opening a file in it says so better.
  if (!error || error == std::errc::permission_denied) return absl::OkStatus();
  return SystemError(error.value(), folder.string());
}

}  // namespace

absl::StatusOr<PackLock> PackLock::Acquire(const fs::path& pack_path) {
  const std::string name = pack_path.string() + ".lock";
  PackLock lock;
  lock.descriptor_ = UniqueFd(open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock.descriptor_.valid()) return SystemError(errno, name);
  const absl::Time start = absl::Now();
  absl::Time next_report = start;
  while (flock(lock.descriptor_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return SystemError(errno, name);
    const absl::Time now = absl::Now();
    if (now >= next_report) {
      spdlog::info("waiting for another process that is packing {} ({} s)", pack_path.string(),
                   absl::ToInt64Seconds(now - start));
      next_report = now + kLockReport;
    }
    absl::SleepFor(kLockPoll);
  }
  return lock;
}

PackWriter::PackWriter(fs::path path, PackIdentity identity, PackGeometry geometry, PackLock lock)
    : path_(std::move(path)),
      partial_path_(path_.string() + ".partial"),
      identity_(std::move(identity)),
      geometry_(geometry),
      lock_(std::move(lock)),
      committed_(geometry.shape.num_layers),
      checksums_(geometry.row_entries) {}

absl::StatusOr<std::unique_ptr<PackWriter>> PackWriter::Create(const fs::path& path,
                                                               const PackIdentity& identity,
                                                               PackLock lock,
                                                               int num_workers) {
  MOESAIC_ASSIGN_OR_RETURN(const PackGeometry geometry, MakePackGeometry(identity.shape));
  std::unique_ptr<PackWriter> writer(new PackWriter(path, identity, geometry, std::move(lock)));
  for (int i = 0; i < num_workers; ++i) {
    MOESAIC_ASSIGN_OR_RETURN(AlignedBuffer slot,
                             AlignedBuffer::Allocate(identity.shape.slot_bytes, "packing"));
    writer->slots_.push_back(std::move(slot));
  }
  MOESAIC_RETURN_IF_ERROR(writer->Open());
  return writer;
}

absl::Status PackWriter::Error(int error, std::string_view doing) const {
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(
        StrCat(path_.parent_path().string(), ": ", std::strerror(error), " ", doing,
               ": the packed experts take ", FormatBytes(geometry_.file_bytes), " (",
               geometry_.file_bytes, " bytes)"));
  }
  return SystemError(error, StrCat(partial_path_.string(), " (", doing, ")"));
}

absl::Status PackWriter::Open() {
  file_ = UniqueFd(open(partial_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!file_.valid()) return Error(errno, "opening it");
  direct_ = UniqueFd(open(partial_path_.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC));
  Resume();
  const auto kept = std::count(committed_.begin(), committed_.end(), true);
  if (kept > 0) {
    spdlog::info("{}: going on where packing stopped, {} of {} layers are there",
                 partial_path_.string(), kept, geometry_.shape.num_layers);
    return absl::OkStatus();
  }
  const absl::Status started = StartAnew();
  // Not worth keeping: nothing is packed, and the room may be wanted.
  if (!started.ok()) unlink(partial_path_.c_str());
  return started;
}

void PackWriter::Resume() {
  struct stat info = {};
  if (fstat(file_.get(), &info) != 0 || info.st_size != geometry_.file_bytes) return;
  const std::string name = partial_path_.string();
  std::vector<std::byte> bytes(kPackHeaderBytes);
  if (!ReadFully(file_.get(), 0, bytes, name).ok()) return;
  const absl::StatusOr<PackHeader> header = ParsePackHeader(bytes, name);
  if (!header.ok() || header->identity != identity_) return;
  std::vector<uint64_t> row(geometry_.row_entries);
  for (int32_t layer = 0; layer < geometry_.shape.num_layers; ++layer) {
    const absl::Status read = ReadFully(file_.get(), geometry_.RowOffset(layer),
                                        std::as_writable_bytes(std::span(row)), name);
    committed_[layer] =
        read.ok() &&
        RowChecksum(identity_, layer, std::span(row).first(row.size() - 1)) == row.back();
  }
}

absl::Status PackWriter::CheckSpace() const {
  const fs::path folder = path_.parent_path();
  struct statvfs info = {};
  if (statvfs(folder.c_str(), &info) != 0) return SystemError(errno, folder.string());
  const uint64_t free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
  if (free_bytes >= static_cast<uint64_t>(geometry_.file_bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      StrCat(folder.string(), ": has ", FormatBytes(free_bytes), " free, the packed experts take ",
             FormatBytes(geometry_.file_bytes), " (", geometry_.file_bytes, " bytes)"));
}

absl::Status PackWriter::StartAnew() {
  // Whatever it held is gone before a byte of this pack is in it.
  if (ftruncate(file_.get(), 0) != 0) return Error(errno, "emptying it");
  MOESAIC_RETURN_IF_ERROR(CheckSpace());
  // Takes the room now rather than when the disk is full; not every file system can.
  if (fallocate(file_.get(), 0, 0, geometry_.file_bytes) != 0) {
    if (errno != EOPNOTSUPP && errno != ENOSYS) return Error(errno, "reserving room");
    if (ftruncate(file_.get(), geometry_.file_bytes) != 0) return Error(errno, "reserving room");
  }
  MOESAIC_RETURN_IF_ERROR(
      Write(0, SerializePackHeader({.identity = identity_, .complete = false})));
  return Sync();
}

absl::Status PackWriter::Write(int64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(file_.get(), bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error(errno, "writing");
    offset += count;
    bytes = bytes.subspan(count);
  }
  return absl::OkStatus();
}

absl::Status PackWriter::Sync() const {
  return fdatasync(file_.get()) == 0 ? absl::OkStatus() : Error(errno, "syncing");
}

std::byte* PackWriter::BeginStripe(StripeId, int worker) { return slots_[worker].data(); }

absl::Status PackWriter::FinishStripe(StripeId id, int worker) {
  const int64_t index = geometry_.Index(id);
  std::span<const std::byte> slot(slots_[worker].data(), geometry_.shape.slot_bytes);
  checksums_[index % geometry_.layer_stripes()] = StripeChecksum(index, slot);
  int64_t offset = geometry_.StripeOffset(index);
  if (direct_.valid()) {
    // What the direct way does not take whole goes the ordinary one, which says what is wrong.
    const ssize_t count = pwrite(direct_.get(), slot.data(), slot.size(), offset);
    if (count > 0) {
      offset += count;
      slot = slot.subspan(count);
    }
  }
  return Write(offset, slot);
}

absl::Status PackWriter::FinishLayer(int32_t layer) {
  MOESAIC_RETURN_IF_ERROR(Sync());
  checksums_.back() =
      RowChecksum(identity_, layer, std::span(checksums_).first(checksums_.size() - 1));
  MOESAIC_RETURN_IF_ERROR(Write(geometry_.RowOffset(layer), std::as_bytes(std::span(checksums_))));
  committed_[layer] = true;
  if (!direct_.valid()) {
    const int64_t layer_bytes = geometry_.layer_stripes() * geometry_.shape.slot_bytes;
    posix_fadvise(file_.get(), geometry_.data_offset + layer * layer_bytes, layer_bytes,
                  POSIX_FADV_DONTNEED);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const ExpertPack>> PackWriter::Finish() {
  const auto missing = std::find(committed_.begin(), committed_.end(), false);
  if (missing != committed_.end()) {
    return absl::InternalError(StrCat(partial_path_.string(), ": layer ",
                                      missing - committed_.begin(), " was not packed"));
  }
  MOESAIC_RETURN_IF_ERROR(Sync());
  MOESAIC_RETURN_IF_ERROR(Write(0, SerializePackHeader({.identity = identity_, .complete = true})));
  if (fsync(file_.get()) != 0) return Error(errno, "syncing");
  if (std::rename(partial_path_.c_str(), path_.c_str()) != 0) return Error(errno, "renaming it");
  MOESAIC_RETURN_IF_ERROR(SyncFolder(path_.parent_path()));
  auto pack = ExpertPack::Open(path_, identity_);
  lock_ = PackLock();
  return pack;
}

absl::StatusOr<PackSession> OpenOrCreatePack(const fs::path& folder,
                                             const PackIdentity& identity,
                                             int num_workers) {
  MOESAIC_RETURN_IF_ERROR(MakeFolder(folder));
  const fs::path path = folder / PackFileName(identity);
  const fs::path mark = DamageMarkPath(path);
  const auto open_usable = [&]() -> absl::StatusOr<std::shared_ptr<const ExpertPack>> {
    std::error_code ignored;
    if (fs::exists(mark, ignored)) {
      return absl::DataLossError(StrCat(path.string(), ": was found damaged when it was read"));
    }
    return ExpertPack::Open(path, identity);
  };
  PackSession session;
  absl::StatusOr<std::shared_ptr<const ExpertPack>> pack = open_usable();
  if (!pack.ok()) {
    absl::StatusOr<PackLock> lock = PackLock::Acquire(path);
    if (!lock.ok()) {
      return absl::Status(lock.status().code(),
                          StrCat(folder.string(), " holds no experts packed for this model (",
                                 pack.status().message(),
                                 ") and they cannot be written: ", lock.status().message()));
    }
    pack = open_usable();  // another process may have finished it meanwhile
    if (!pack.ok()) {
      if (!absl::IsNotFound(pack.status())) {
        spdlog::warn("packing the experts anew: {}", std::string(pack.status().message()));
      }
      // Readers that have it open keep what they have.
      if ((unlink(path.c_str()) != 0 && errno != ENOENT) ||
          (unlink(mark.c_str()) != 0 && errno != ENOENT)) {
        return SystemError(errno, StrCat(path.string(), " (deleting it)"));
      }
      MOESAIC_ASSIGN_OR_RETURN(session.writer,
                               PackWriter::Create(path, identity, *std::move(lock), num_workers));
      return session;
    }
  }
  session.pack = *std::move(pack);
  return session;
}

}  // namespace moesaic
