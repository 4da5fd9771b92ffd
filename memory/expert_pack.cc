#include "memory/expert_pack.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "memory/file_io.h"

namespace moesaic {
namespace {

absl::Status CheckIdentity(const PackIdentity& found,
                           const PackIdentity& expected,
                           std::string_view name) {
  if (found == expected) return absl::OkStatus();
  std::string_view difference = "is cut into other stripes";
  if (found.model != expected.model) {
    difference = "was packed from another model";
  } else if (found.dtype != expected.dtype) {
    difference = "holds another type of weights";
  } else if (found.inner_order != expected.inner_order) {
    difference = "is in another kernel's order";
  }
  return absl::FailedPreconditionError(StrCat(name, ": ", difference));
}

}  // namespace

std::filesystem::path DamageMarkPath(const std::filesystem::path& pack_path) {
  return pack_path.string() + ".damaged";
}

absl::StatusOr<std::shared_ptr<const ExpertPack>> ExpertPack::Open(
    const std::filesystem::path& path, const PackIdentity& identity) {
  const std::string name = path.string();
  std::shared_ptr<ExpertPack> pack(new ExpertPack());
  pack->path_ = path;
  MOESAIC_ASSIGN_OR_RETURN(pack->geometry_, MakePackGeometry(identity.shape));
  // O_NONBLOCK: opening a pipe of that name must not wait for a writer.
  pack->descriptor_ = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!pack->descriptor_.valid()) return SystemError(errno, name);
  struct stat info = {};
  if (fstat(pack->descriptor(), &info) != 0) return SystemError(errno, name);
  if (!S_ISREG(info.st_mode)) return absl::DataLossError(StrCat(name, ": not a regular file"));

  std::vector<std::byte> bytes(kPackHeaderBytes);
  MOESAIC_RETURN_IF_ERROR(ReadFully(pack->descriptor(), 0, bytes, name));
  MOESAIC_ASSIGN_OR_RETURN(const PackHeader header, ParsePackHeader(bytes, name));
  MOESAIC_RETURN_IF_ERROR(CheckIdentity(header.identity, identity, name));
  if (!header.complete) return absl::DataLossError(StrCat(name, ": is not complete"));
  if (info.st_size != pack->geometry_.file_bytes) {
    return absl::DataLossError(StrCat(name, ": has ", info.st_size, " bytes, its header says ",
                                      pack->geometry_.file_bytes));
  }
  const int64_t row_entries = pack->geometry_.row_entries;
  pack->rows_.resize(row_entries * identity.shape.num_layers);
  const std::span<uint64_t> rows(pack->rows_);
  MOESAIC_RETURN_IF_ERROR(ReadFully(pack->descriptor(), pack->geometry_.RowOffset(0),
                                    std::as_writable_bytes(rows), name));
  for (int32_t layer = 0; layer < identity.shape.num_layers; ++layer) {
    const std::span<const uint64_t> row = rows.subspan(layer * row_entries, row_entries);
    if (RowChecksum(identity, layer, row.first(row_entries - 1)) != row.back()) {
      return absl::DataLossError(StrCat(name, ": the checksums of layer ", layer, " are damaged"));
    }
  }
  return pack;
}

absl::Status ExpertPack::Verify(int64_t index, std::span<const std::byte> slot) const {
  const int64_t layer_stripes = geometry_.layer_stripes();
  const uint64_t expected =
      rows_[index / layer_stripes * geometry_.row_entries + index % layer_stripes];
  if (StripeChecksum(index, slot) == expected) return absl::OkStatus();
  return absl::DataLossError(StrCat(Describe(index), ": damaged (wrong checksum)"));
}

std::string ExpertPack::Describe(int64_t index) const {
  const StripeId id = geometry_.Id(index);
  return StrCat(path_.string(), ": layer ", id.expert.layer, ", expert ", id.expert.index,
                ", stripe ", id.stripe);
}

void ExpertPack::MarkDamaged() const {
  const std::filesystem::path mark = DamageMarkPath(path_);
  const UniqueFd file(open(mark.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (file.valid()) {
    spdlog::error("{}: damaged; the next start packs it anew", path_.string());
  } else {
    spdlog::error("{}: damaged; delete it to have it packed anew (it could not be marked: {})",
                  path_.string(), std::strerror(errno));
  }
}

}  // namespace moesaic
