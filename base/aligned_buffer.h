#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

namespace moesaic {

// A zeroed block of memory straight from the operating system, aligned to 2 MiB when it is that
// large and then backed by huge pages where the kernel offers them. Move-only owner; unmapped in
// the destructor.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

  // ResourceExhausted, with the size and `what` it was for, when the system refuses or the machine
  // has less memory than that.
  static absl::StatusOr<AlignedBuffer> Allocate(size_t bytes, const char* what);

  // Gives the memory of bytes [from, size) back to the system; they read as zero afterwards.
  void Discard(size_t from);

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
};

}  // namespace moesaic
