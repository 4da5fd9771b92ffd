#include "memory/file_io.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/str_cat.h"

namespace moesaic {

absl::Status SystemError(int error, std::string_view what) {
  const std::string text = StrCat(what, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status ReadFully(int descriptor,
                       int64_t offset,
                       std::span<std::byte> bytes,
                       std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t count = pread(descriptor, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError(errno, what);
    if (count == 0) return absl::DataLossError(StrCat(what, ": ends at byte ", offset));
    offset += count;
    bytes = bytes.subspan(count);
  }
  return absl::OkStatus();
}

}  // namespace moesaic
