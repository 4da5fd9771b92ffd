#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/stream.h"

namespace moesaic {

// A block of memory that belongs to a device, given back in the destructor, before the device ends.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // An address of the device; on the CPU's side only if Device::host_accessible().
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 protected:
  DeviceMemory(std::byte* data, size_t size) : data_(data), size_(size) {}

 private:
  std::byte* data_;
  size_t size_;
};

// The end of a copy on its CopyStream: the event of a copy has come when all copies started before
// it are done too.
using CopyEvent = uint64_t;

// Copies from host memory to a device, in order, beside the device's computation. Thread: one at a
// time.
class CopyStream {
 public:
  virtual ~CopyStream() = default;

  // Starts copying `bytes` to the device's `to`; both stay as they are until the event has come.
  // An error means that nothing was started.
  virtual absl::StatusOr<CopyEvent> Copy(std::byte* to, const std::byte* from, size_t bytes) = 0;
  // Whether the event has come. An error is that of a copy up to it. Never blocks.
  virtual absl::StatusOr<bool> Poll(CopyEvent event) = 0;
};

// Where experts are computed: its memory, its stream of computation and its copy streams. Nothing
// above memory/ knows which device it is.
//
// Owner: main. Thread: any. Lifetime: longer than all it made.
class Device {
 public:
  virtual ~Device() = default;

  // Zeroed or not, aligned to 4 KiB at least, in 2 MiB pages where the system has them.
  // ResourceExhausted when the device has less; `what` says what it was for.
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(size_t bytes,
                                                                 const char* what) = 0;
  // Memory of the host from which copies to this device are fastest (pinned for a GPU).
  virtual absl::StatusOr<std::unique_ptr<DeviceMemory>> AllocateHost(size_t bytes,
                                                                     const char* what) = 0;
  // Whether the CPU may read and write the device's memory, so that disk reads go straight to it.
  virtual bool host_accessible() const = 0;

  virtual absl::StatusOr<std::unique_ptr<CopyStream>> CreateCopyStream() = 0;
  // Where operators run.
  virtual Stream stream() const = 0;
};

}  // namespace moesaic
