#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace moesaic {

// Many reads of one file at a time, past the page cache where the file system can: by io_uring, or,
// where the kernel refuses that or direct I/O, by threads that call pread. Large reads are split.
//
// Owner: an expert store. Thread: one at a time (the copy thread), but for Wake. Lifetime: the
// destructor waits for the reads under way. No allocation after Create.
class DiskReader {
 public:
  enum class Method { kAuto, kUring, kThreads };
  struct Options {
    Method method = Method::kAuto;
    int queue_depth = 32;                // parts that the disk works on at a time
    int64_t max_part_bytes = 512 << 10;  // a multiple of 4 KiB; larger reads are split
    int max_reads = 64;                  // started and not yet finished
  };
  // OK, DataLoss (the file ends early), or Unavailable or another error of the disk.
  struct Completion {
    uint64_t token = 0;
    absl::Status status = {};
  };

  // Of the file open as `descriptor`, which stays the caller's and open meanwhile, and may be set
  // to direct I/O. `name` stands in errors. Unavailable when `method` is not to be had.
  static absl::StatusOr<std::unique_ptr<DiskReader>> Create(int descriptor,
                                                            const std::string& name,
                                                            const Options& options);
  virtual ~DiskReader() = default;

  // Starts reading; at most max_reads() at a time. `offset`, `data` and `bytes` are multiples of
  // 4 KiB; `data` is untouched by the caller until the completion.
  virtual void Start(int64_t offset, std::byte* data, int64_t bytes, uint64_t token) = 0;
  // Appends what has finished to `out`. Blocks until there is something, until `deadline`, or until
  // Wake() was called since the last return.
  virtual void Wait(absl::Time deadline, std::vector<Completion>& out) = 0;
  virtual void Wake() = 0;  // any thread

  virtual int max_reads() const = 0;
  // "io_uring, direct", "threads, through the page cache" and so on.
  virtual std::string description() const = 0;
};

}  // namespace moesaic
