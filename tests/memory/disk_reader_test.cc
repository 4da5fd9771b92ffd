// Also covers read_queue and uring_reader.

#include "memory/disk_reader.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "base/aligned_buffer.h"
#include "base/unique_fd.h"
#include "memory/read_queue.h"
#include "tests/checkpoint/test_files.h"

namespace moesaic {
namespace {

using testing::HasSubstr;
using Method = DiskReader::Method;

constexpr int64_t kPage = 4096;
constexpr int64_t kFileBytes = 300 * kPage;

std::string FileBytes() {
  std::string bytes(kFileBytes, '\0');
  std::mt19937 random(1);
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

class DiskReaderTest : public testing::TestWithParam<Method> {
 protected:
  DiskReaderTest() {
    path_ = folder_.Write("file", bytes_);
    fd_ = UniqueFd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  }

  // Null, and the test is over, where the kernel does not offer the method.
  std::unique_ptr<DiskReader> Reader(DiskReader::Options options = {}) {
    options.method = GetParam();
    auto reader = DiskReader::Create(fd_.get(), path_.string(), options);
    return reader.ok() ? *std::move(reader) : nullptr;
  }

  const TempFolder folder_;
  const std::string bytes_ = FileBytes();
  std::filesystem::path path_;
  UniqueFd fd_;
};

#define NEED_READER(reader) \
  if ((reader) == nullptr) GTEST_SKIP() << "not to be had on this machine"

TEST_P(DiskReaderTest, ManyReadsOfAllSizesArriveWhole) {
  const auto reader = Reader({.queue_depth = 5, .max_part_bytes = 3 * kPage, .max_reads = 7});
  NEED_READER(reader);
  EXPECT_EQ(reader->max_reads(), 7);
  std::mt19937 random(2);
  struct Wanted {
    int64_t offset;
    int64_t bytes;
    AlignedBuffer buffer;
  };
  std::vector<Wanted> wanted;
  for (int i = 0; i < 200; ++i) {
    const int64_t pages = 1 + random() % 20;
    const int64_t first = random() % (kFileBytes / kPage - pages + 1);
    wanted.push_back(
        {first * kPage, pages * kPage, *AlignedBuffer::Allocate(pages * kPage, "test")});
  }
  std::vector<bool> seen(wanted.size());
  std::vector<DiskReader::Completion> done;
  size_t started = 0;
  size_t finished = 0;
  while (finished < wanted.size()) {
    while (started < wanted.size() && started - finished < 7) {
      Wanted& read = wanted[started];
      reader->Start(read.offset, read.buffer.data(), read.bytes, started);
      ++started;
    }
    reader->Wait(absl::InfiniteFuture(), done);
    ASSERT_FALSE(done.empty());
    for (const DiskReader::Completion& completion : done) {
      ASSERT_TRUE(completion.status.ok()) << completion.status;
      ASSERT_FALSE(seen[completion.token]);
      seen[completion.token] = true;
      const Wanted& read = wanted[completion.token];
      EXPECT_EQ(std::memcmp(read.buffer.data(), bytes_.data() + read.offset, read.bytes), 0);
    }
    finished += done.size();
    done.clear();
  }
}

TEST_P(DiskReaderTest, WakeAndDeadlineEndAWait) {
  const auto reader = Reader();
  NEED_READER(reader);
  std::vector<DiskReader::Completion> done;
  reader->Wait(absl::InfinitePast(), done);
  reader->Wait(absl::Now() + absl::Milliseconds(1), done);
  reader->Wake();  // before the wait
  reader->Wait(absl::InfiniteFuture(), done);
  for (int i = 0; i < 20; ++i) {
    std::thread waker([&] { reader->Wake(); });
    reader->Wait(absl::InfiniteFuture(), done);
    waker.join();
  }
  EXPECT_TRUE(done.empty());
}

TEST_P(DiskReaderTest, AFileThatBecameShorterFailsTheReadsPastItsEnd) {
  const auto reader = Reader({.queue_depth = 2, .max_part_bytes = 4 * kPage});
  NEED_READER(reader);
  std::filesystem::resize_file(path_, 10 * kPage + 1000);
  const AlignedBuffer buffer = *AlignedBuffer::Allocate(64 * kPage, "test");
  reader->Start(0, buffer.data(), 10 * kPage, 0);
  reader->Start(0, buffer.data() + 10 * kPage, 20 * kPage, 1);
  reader->Start(100 * kPage, buffer.data() + 30 * kPage, 20 * kPage, 2);
  reader->Start(8 * kPage, buffer.data() + 50 * kPage, 2 * kPage, 3);
  std::vector<DiskReader::Completion> done;
  while (done.size() < 4) reader->Wait(absl::InfiniteFuture(), done);
  for (const DiskReader::Completion& completion : done) {
    const bool whole = completion.token == 0 || completion.token == 3;
    EXPECT_EQ(completion.status.ok(), whole) << completion.token << completion.status;
    if (whole) continue;
    EXPECT_TRUE(absl::IsDataLoss(completion.status)) << completion.status;
    EXPECT_THAT(std::string(completion.status.message()), HasSubstr(path_.string()));
  }
}

TEST_P(DiskReaderTest, AnErrorOfTheSystemFailsItsReadAlone) {
  const auto reader = Reader({.queue_depth = 2, .max_part_bytes = 4 * kPage});
  NEED_READER(reader);
  const AlignedBuffer buffer = *AlignedBuffer::Allocate(8 * kPage, "test");
  reader->Start(0, reinterpret_cast<std::byte*>(kPage), 20 * kPage, 0);  // no memory there
  reader->Start(0, buffer.data(), 8 * kPage, 1);
  std::vector<DiskReader::Completion> done;
  while (done.size() < 2) reader->Wait(absl::InfiniteFuture(), done);
  for (const DiskReader::Completion& completion : done) {
    EXPECT_EQ(completion.status.ok(), completion.token == 1) << completion.status;
  }
  EXPECT_EQ(std::memcmp(buffer.data(), bytes_.data(), 8 * kPage), 0);
}

TEST_P(DiskReaderTest, TheEndWaitsForReadsUnderWay) {
  const AlignedBuffer buffer = *AlignedBuffer::Allocate(kFileBytes, "test");
  for (int i = 0; i < 10; ++i) {
    const auto reader = Reader({.queue_depth = 4, .max_part_bytes = kPage});
    NEED_READER(reader);
    for (int read = 0; read < 30; ++read) {
      reader->Start(read * 10 * kPage, buffer.data() + read * 10 * kPage, 10 * kPage, read);
    }
  }
  // Nothing writes here any more.
  std::memset(buffer.data(), 0x5a, buffer.size());
  for (size_t i = 0; i < buffer.size(); ++i) {
    ASSERT_EQ(buffer.data()[i], std::byte{0x5a}) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Methods,
                         DiskReaderTest,
                         testing::Values(Method::kUring, Method::kThreads),
                         [](const auto& info) {
                           return info.param == Method::kUring ? "Uring" : "Threads";
                         });

// A file that the system answers with EIO, and that cannot be read past the page cache: a process's
// memory where there is none.
TEST(DiskReaderFallbackTest, WhereDirectReadsAreImpossibleThreadsReadThroughTheCache) {
  const UniqueFd memory(open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(memory.valid());
  EXPECT_EQ(DiskReader::Create(memory.get(), "memory", {.method = Method::kUring}).status().code(),
            absl::StatusCode::kUnavailable);
  const auto reader = DiskReader::Create(memory.get(), "memory", {});
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT((*reader)->description(), HasSubstr("through the page cache"));

  const AlignedBuffer source = *AlignedBuffer::Allocate(2 * kPage, "test");
  const AlignedBuffer target = *AlignedBuffer::Allocate(4 * kPage, "test");
  std::memset(source.data(), 7, source.size());
  (*reader)->Start(reinterpret_cast<int64_t>(source.data()), target.data(), 2 * kPage, 0);
  (*reader)->Start(0, target.data() + 2 * kPage, 2 * kPage, 1);
  std::vector<DiskReader::Completion> done;
  while (done.size() < 2) (*reader)->Wait(absl::InfiniteFuture(), done);
  for (const DiskReader::Completion& completion : done) {
    if (completion.token == 0) {
      EXPECT_TRUE(completion.status.ok()) << completion.status;
      EXPECT_EQ(std::memcmp(source.data(), target.data(), 2 * kPage), 0);
    } else {
      EXPECT_TRUE(absl::IsUnavailable(completion.status)) << completion.status;
      EXPECT_THAT(std::string(completion.status.message()), HasSubstr(std::strerror(EIO)));
    }
  }
}

TEST(ReadQueueTest, ShortAndInterruptedPartsAreReadOn) {
  ReadQueue queue("file", {.queue_depth = 2, .max_part_bytes = 4 * kPage, .max_reads = 2});
  const auto buffer = reinterpret_cast<std::byte*>(uintptr_t{1} << 30);
  queue.Add(0, buffer, 10 * kPage, 5);
  const int first = queue.TakePart();
  const int second = queue.TakePart();
  ASSERT_GE(second, 0);
  EXPECT_EQ(queue.TakePart(), -1);  // the depth
  EXPECT_EQ(queue.part(second).offset, 4 * kPage);
  queue.FinishPart(first, kPage + 100);  // what does not fill a page is read again
  ASSERT_EQ(queue.TakePart(), first);
  EXPECT_EQ(queue.part(first).offset, kPage);
  EXPECT_EQ(queue.part(first).data, buffer + kPage);
  EXPECT_EQ(queue.part(first).bytes, 3 * kPage);
  queue.FinishPart(first, -EINTR);
  ASSERT_EQ(queue.TakePart(), first);
  queue.FinishPart(first, 3 * kPage);
  queue.FinishPart(second, 4 * kPage);
  EXPECT_FALSE(queue.has_finished());
  const int last = queue.TakePart();
  EXPECT_EQ(queue.part(last).bytes, 2 * kPage);
  queue.FinishPart(last, 2 * kPage);
  std::vector<DiskReader::Completion> done;
  queue.TakeFinished(done);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].token, 5u);
  EXPECT_TRUE(done[0].status.ok());
}

TEST(ReadQueueTest, AfterAnErrorTheRestIsNotRead) {
  ReadQueue queue("file", {.queue_depth = 2, .max_part_bytes = kPage, .max_reads = 2});
  const auto buffer = reinterpret_cast<std::byte*>(uintptr_t{1} << 30);
  queue.Add(0, buffer, 100 * kPage, 1);
  queue.Add(0, buffer, kPage, 2);
  const int first = queue.TakePart();
  const int second = queue.TakePart();
  queue.FinishPart(first, -EIO);
  const int other = queue.TakePart();
  EXPECT_EQ(queue.part(other).read, 1);
  queue.FinishPart(second, kPage);
  queue.FinishPart(other, kPage);
  std::vector<DiskReader::Completion> done;
  queue.TakeFinished(done);
  ASSERT_EQ(done.size(), 2u);
  EXPECT_EQ(done[0].token, 1u);
  EXPECT_TRUE(absl::IsUnavailable(done[0].status)) << done[0].status;
  EXPECT_TRUE(done[1].status.ok());
  EXPECT_EQ(queue.TakePart(), -1);
}

TEST(ReadQueueTest, TryAgainDoesNotGoOnForever) {
  ReadQueue queue("file", {.queue_depth = 1, .max_part_bytes = kPage, .max_reads = 1});
  queue.Add(0, reinterpret_cast<std::byte*>(uintptr_t{1} << 30), kPage, 1);
  for (int i = 0; i < 5000 && !queue.has_finished(); ++i)
    queue.FinishPart(queue.TakePart(), -EAGAIN);
  std::vector<DiskReader::Completion> done;
  queue.TakeFinished(done);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_FALSE(done[0].status.ok());
}

}  // namespace
}  // namespace moesaic
