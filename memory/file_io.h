#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace moesaic {

// An errno about the file `what` as a status: NotFound, PermissionDenied (also read-only file
// systems), ResourceExhausted (no room), else Unavailable.
absl::Status SystemError(int error, std::string_view what);

// A positioned read that goes on after interruptions and partial transfers. DataLoss when the file
// ends before `bytes` is full.
absl::Status ReadFully(int descriptor,
                       int64_t offset,
                       std::span<std::byte> bytes,
                       std::string_view what);

}  // namespace moesaic
