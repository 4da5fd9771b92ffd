#include "memory/cpu_device.h"

#include <cstring>
#include <limits>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

TEST(CpuDeviceTest, MemoryIsAlignedAndTheCpuReachesIt) {
  CpuDevice device(nullptr);
  EXPECT_TRUE(device.host_accessible());
  EXPECT_EQ(device.stream().native, nullptr);
  for (const size_t bytes : {size_t{4096}, size_t{5} << 20}) {
    const auto memory = device.Allocate(bytes, "test");
    ASSERT_TRUE(memory.ok());
    EXPECT_EQ((*memory)->size(), bytes);
    const size_t alignment = bytes >= (size_t{2} << 20) ? size_t{2} << 20 : 4096;
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*memory)->data()) % alignment, 0u);
    std::memset((*memory)->data(), 1, bytes);
  }
  EXPECT_EQ(device.Allocate(std::numeric_limits<int64_t>::max(), "test").status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(CpuDeviceTest, ACopyIsDoneWhenItsEventHasCome) {
  CpuDevice device(nullptr);
  const auto from = *device.AllocateHost(4096, "test");
  const auto to = *device.Allocate(4096, "test");
  std::memset(from->data(), 7, 4096);
  const auto stream = *device.CreateCopyStream();
  const absl::StatusOr<CopyEvent> first = stream->Copy(to->data(), from->data(), 100);
  const absl::StatusOr<CopyEvent> second = stream->Copy(to->data() + 100, from->data(), 3996);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_LT(*first, *second);
  EXPECT_TRUE(*stream->Poll(*first));
  EXPECT_TRUE(*stream->Poll(*second));
  EXPECT_EQ(std::memcmp(from->data(), to->data(), 4096), 0);
}

}  // namespace
}  // namespace moesaic
