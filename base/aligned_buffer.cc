#include "base/aligned_buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/machine_memory.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

}  // namespace

AlignedBuffer::~AlignedBuffer() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_bytes_(std::exchange(other.mapping_bytes_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

absl::StatusOr<AlignedBuffer> AlignedBuffer::Allocate(size_t bytes, const char* what) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  const bool huge = bytes >= kHugePageBytes;
  const size_t slack = huge ? kHugePageBytes : 0;
  if (bytes > static_cast<size_t>(MachineMemoryBytes())) {
    return absl::ResourceExhaustedError(StrCat("cannot allocate ", bytes, " bytes for ", what));
  }
  void* mapping = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(StrCat("cannot allocate ", bytes, " bytes for ", what));
  }
  buffer.mapping_ = mapping;
  buffer.mapping_bytes_ = bytes + slack;
  buffer.size_ = bytes;
  buffer.data_ = static_cast<std::byte*>(mapping);
  if (huge) {
    const auto address = reinterpret_cast<uintptr_t>(mapping);
    const size_t shift = (kHugePageBytes - address % kHugePageBytes) % kHugePageBytes;
    buffer.data_ += shift;
    madvise(buffer.data_, bytes, MADV_HUGEPAGE);
  }
  return buffer;
}

void AlignedBuffer::Discard(size_t from) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t first_page = (from + page - 1) / page * page;
  if (first_page < size_) {
    madvise(data_ + first_page, size_ - first_page, MADV_DONTNEED);
  }
  if (from < std::min(first_page, size_)) {
    std::memset(data_ + from, 0, std::min(first_page, size_) - from);
  }
}

}  // namespace moesaic
