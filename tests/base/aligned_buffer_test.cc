#include "base/aligned_buffer.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include <gtest/gtest.h>

#include "base/machine_memory.h"

namespace moesaic {
namespace {

TEST(AlignedBufferTest, IsZeroedWritableAndAligned) {
  for (size_t bytes : {size_t{1}, size_t{4096}, (size_t{2} << 20) - 1, size_t{5} << 20}) {
    absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(bytes, "test");
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(buffer->size(), bytes);
    const size_t alignment = bytes >= (size_t{2} << 20) ? size_t{2} << 20 : 4096;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % alignment, 0u);
    EXPECT_EQ(buffer->as<uint8_t>()[bytes - 1], 0);
    buffer->as<uint8_t>()[0] = 1;
    buffer->as<uint8_t>()[bytes - 1] = 2;
  }
}

TEST(AlignedBufferTest, MovesLeaveOneOwner) {
  AlignedBuffer first = *AlignedBuffer::Allocate(4096, "test");
  std::byte* data = first.data();
  AlignedBuffer second = std::move(first);
  EXPECT_EQ(second.data(), data);
  AlignedBuffer third;
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.size(), 4096u);
}

TEST(AlignedBufferTest, DiscardedBytesReadAsZeroAndTheRestStays) {
  constexpr size_t kBytes = (size_t{3} << 20) + 123;
  AlignedBuffer buffer = *AlignedBuffer::Allocate(kBytes, "test");
  for (const size_t from : {kBytes, kBytes - 1, (size_t{2} << 20) + 5000, size_t{0}}) {
    std::fill_n(buffer.as<uint8_t>(), kBytes, uint8_t{7});
    buffer.Discard(from);
    for (size_t i = 0; i < kBytes; ++i) {
      ASSERT_EQ(buffer.as<uint8_t>()[i], i < from ? 7 : 0) << i << " from " << from;
    }
  }
}

TEST(AlignedBufferTest, MoreThanTheMachineHasIsRefused) {
  EXPECT_EQ(AlignedBuffer::Allocate(static_cast<size_t>(MachineMemoryBytes()) + 1, "test")
                .status()
                .code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(AlignedBufferTest, RefusalNamesSizeAndPurpose) {
  const absl::Status status =
      AlignedBuffer::Allocate(std::numeric_limits<size_t>::max(), "the KV cache").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(status.message()).find("the KV cache"), std::string::npos);
}

}  // namespace
}  // namespace moesaic
