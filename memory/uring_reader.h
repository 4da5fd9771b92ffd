#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "memory/disk_reader.h"

namespace moesaic {

// A DiskReader over io_uring of a file that is open for direct I/O. Unavailable when the kernel
// refuses (a container's seccomp profile, kernel.io_uring_disabled) or is too old.
absl::StatusOr<std::unique_ptr<DiskReader>> CreateUringReader(int descriptor,
                                                              const std::string& name,
                                                              const DiskReader::Options& options);

}  // namespace moesaic
