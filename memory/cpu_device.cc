#include "memory/cpu_device.h"

#include <cstring>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/status_macros.h"

namespace moesaic {
namespace {

class CpuMemory final : public DeviceMemory {
 public:
  explicit CpuMemory(AlignedBuffer buffer)
      : DeviceMemory(buffer.data(), buffer.size()), buffer_(std::move(buffer)) {}

 private:
  AlignedBuffer buffer_;
};

class CpuCopyStream final : public CopyStream {
 public:
  absl::StatusOr<CopyEvent> Copy(std::byte* to, const std::byte* from, size_t bytes) override {
    std::memcpy(to, from, bytes);
    return ++copies_;
  }
  absl::StatusOr<bool> Poll(CopyEvent event) override { return event <= copies_; }

 private:
  CopyEvent copies_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceMemory>> CpuDevice::Allocate(size_t bytes, const char* what) {
  MOESAIC_ASSIGN_OR_RETURN(AlignedBuffer buffer, AlignedBuffer::Allocate(bytes, what));
  return std::make_unique<CpuMemory>(std::move(buffer));
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> CpuDevice::AllocateHost(size_t bytes,
                                                                      const char* what) {
  return Allocate(bytes, what);
}

absl::StatusOr<std::unique_ptr<CopyStream>> CpuDevice::CreateCopyStream() {
  return std::make_unique<CpuCopyStream>();
}

}  // namespace moesaic
