#include "memory/disk_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/str_cat.h"
#include "memory/read_queue.h"
#include "memory/uring_reader.h"

namespace moesaic {
namespace {

constexpr int kMaxThreads = 16;

// Each thread reads one part at a time.
class ThreadReader : public DiskReader {
 public:
  ThreadReader(int descriptor, const std::string& name, const Options& options, bool direct)
      : descriptor_(descriptor),
        max_reads_(options.max_reads),
        direct_(direct),
        queue_(name, options) {
    for (int i = 0; i < std::min(options.queue_depth, kMaxThreads); ++i) {
      threads_.emplace_back([this] { Work(); });
    }
  }

  ~ThreadReader() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void Start(int64_t offset, std::byte* data, int64_t bytes, uint64_t token) override {
    {
      const std::lock_guard lock(mutex_);
      queue_.Add(offset, data, bytes, token);
    }
    work_.notify_all();
  }

  void Wait(absl::Time deadline, std::vector<Completion>& out) override {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return woken_ || queue_.has_finished(); };
    if (deadline == absl::InfiniteFuture()) {
      done_.wait(lock, ready);
    } else {
      done_.wait_until(lock, absl::ToChronoTime(deadline), ready);
    }
    woken_ = false;
    queue_.TakeFinished(out);
  }

  void Wake() override {
    {
      const std::lock_guard lock(mutex_);
      woken_ = true;
    }
    done_.notify_one();
  }

  int max_reads() const override { return max_reads_; }
  std::string description() const override {
    return StrCat(threads_.size(), " threads, ", direct_ ? "direct" : "through the page cache");
  }

 private:
  void Work() {
    std::unique_lock lock(mutex_);
    while (true) {
      int number = -1;
      work_.wait(lock, [&] { return stop_ || (number = queue_.TakePart()) >= 0; });
      if (number < 0) return;
      const ReadQueue::Part part = queue_.part(number);
      lock.unlock();
      const ssize_t count = pread(descriptor_, part.data, part.bytes, part.offset);
      const int64_t result = count >= 0 ? count : -errno;
      lock.lock();
      queue_.FinishPart(number, result);
      if (queue_.has_finished()) done_.notify_one();
    }
  }

  const int descriptor_;
  const int max_reads_;
  const bool direct_;
  std::mutex mutex_;  // over queue_, woken_ and stop_
  std::condition_variable work_;
  std::condition_variable done_;
  ReadQueue queue_;
  bool woken_ = false;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DiskReader>> DiskReader::Create(int descriptor,
                                                               const std::string& name,
                                                               const Options& options) {
  const Options clamped = ClampReaderOptions(options);
  const int flags = fcntl(descriptor, F_GETFL);
  const bool direct = flags >= 0 && fcntl(descriptor, F_SETFL, flags | O_DIRECT) == 0;
  if (options.method != Method::kThreads) {
    absl::Status refused = absl::UnavailableError("direct I/O is not possible here");
    if (direct) {
      absl::StatusOr<std::unique_ptr<DiskReader>> reader =
          CreateUringReader(descriptor, name, clamped);
      if (reader.ok()) return reader;
      refused = reader.status();
    }
    if (options.method == Method::kUring) {
      return absl::UnavailableError(StrCat(name, ": no io_uring: ", refused.message()));
    }
    spdlog::info("{}: read by threads, not by io_uring: {}", name, std::string(refused.message()));
  }
  return std::make_unique<ThreadReader>(descriptor, name, clamped, direct);
}

}  // namespace moesaic
