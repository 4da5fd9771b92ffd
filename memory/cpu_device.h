#pragma once

#include <memory>

#include "memory/device.h"

namespace moesaic {

class ThreadPool;

// The CPU: its memory is the host's, its copies are made by the calling thread and done on return.
// Owner, thread, lifetime: Device's.
class CpuDevice final : public Device {
 public:
  // Operators run on `pool`, which outlives the device. Null where nothing is computed.
  explicit CpuDevice(ThreadPool* pool) : pool_(pool) {}

  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(size_t bytes, const char* what) override;
  absl::StatusOr<std::unique_ptr<DeviceMemory>> AllocateHost(size_t bytes,
                                                             const char* what) override;
  bool host_accessible() const override { return true; }
  absl::StatusOr<std::unique_ptr<CopyStream>> CreateCopyStream() override;
  Stream stream() const override { return {.pool = pool_}; }

 private:
  ThreadPool* pool_;
};

}  // namespace moesaic
