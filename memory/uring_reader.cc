#include "memory/uring_reader.h"

#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/time/clock.h"
#include "base/str_cat.h"
#include "base/unique_fd.h"
#include "memory/read_queue.h"

namespace moesaic {
namespace {

constexpr uint64_t kWakeUserData = ~uint64_t{0};
constexpr absl::Duration kTryAgain = absl::Milliseconds(1);  // the kernel did not take an entry

class UringReader : public DiskReader {
 public:
  UringReader(const std::string& name, const Options& options)
      : max_reads_(options.max_reads), queue_(name, options) {}

  // The kernel may write to the slots until every part is back.
  ~UringReader() override {
    if (!has_ring_) return;
    while (parts_in_ring_ > 0) {
      io_uring_submit(&ring_);
      WaitForEntry(kTryAgain);
      Reap();
    }
    io_uring_queue_exit(&ring_);
  }

  // Minus an errno, or 0.
  int Open(int descriptor, const Options& options) {
    wake_fd_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake_fd_.valid()) return -errno;
    // One entry more: the poll of the eventfd.
    const int error = io_uring_queue_init(options.queue_depth + 1, &ring_, 0);
    if (error != 0) return error;
    has_ring_ = true;
    // Waiting with a timeout must not need an entry of its own (Linux 5.11).
    if ((ring_.features & IORING_FEAT_EXT_ARG) == 0) return -ENOSYS;
    return io_uring_register_files(&ring_, &descriptor, 1);
  }

  void Start(int64_t offset, std::byte* data, int64_t bytes, uint64_t token) override {
    queue_.Add(offset, data, bytes, token);
    Submit();
  }

  void Wait(absl::Time deadline, std::vector<Completion>& out) override {
    while (true) {
      Reap();
      Submit();
      if (queue_.has_finished() || woken_) break;
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) break;
      WaitForEntry(io_uring_sq_ready(&ring_) > 0 ? std::min(left, kTryAgain) : left);
    }
    woken_ = false;
    queue_.TakeFinished(out);
  }

  void Wake() override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t count = write(wake_fd_.get(), &one, sizeof(one));
  }

  int max_reads() const override { return max_reads_; }
  std::string description() const override { return "io_uring, direct"; }

 private:
  void Submit() {
    if (!polling_) {
      if (io_uring_sqe* sqe = io_uring_get_sqe(&ring_)) {
        io_uring_prep_poll_add(sqe, wake_fd_.get(), POLLIN);
        io_uring_sqe_set_data64(sqe, kWakeUserData);
        polling_ = true;
      }
    }
    while (io_uring_sq_space_left(&ring_) > 0) {
      const int number = queue_.TakePart();
      if (number < 0) break;
      const ReadQueue::Part& part = queue_.part(number);
      io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
      io_uring_prep_read(sqe, 0, part.data, static_cast<unsigned>(part.bytes), part.offset);
      sqe->flags |= IOSQE_FIXED_FILE;
      io_uring_sqe_set_data64(sqe, static_cast<uint64_t>(number));
      ++parts_in_ring_;
    }
    // What the kernel does not take now ("try again") stays in the ring for the next call.
    if (io_uring_sq_ready(&ring_) > 0) io_uring_submit(&ring_);
  }

  void Reap() {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      const uint64_t data = io_uring_cqe_get_data64(cqe);
      const int result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      if (data == kWakeUserData) {
        uint64_t count = 0;
        [[maybe_unused]] const ssize_t bytes = read(wake_fd_.get(), &count, sizeof(count));
        polling_ = false;
        woken_ = true;
      } else {
        --parts_in_ring_;
        queue_.FinishPart(static_cast<int>(data), result);
      }
    }
  }

  void WaitForEntry(absl::Duration longest) {
    io_uring_cqe* cqe = nullptr;
    if (longest == absl::InfiniteDuration()) {
      io_uring_wait_cqe(&ring_, &cqe);
      return;
    }
    const timespec time = absl::ToTimespec(longest);
    __kernel_timespec timeout = {.tv_sec = time.tv_sec, .tv_nsec = time.tv_nsec};
    io_uring_wait_cqe_timeout(&ring_, &cqe, &timeout);
  }

  const int max_reads_;
  ReadQueue queue_;
  UniqueFd wake_fd_;
  io_uring ring_ = {};
  bool has_ring_ = false;
  int parts_in_ring_ = 0;
  bool polling_ = false;  // an entry waits for wake_fd_
  bool woken_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DiskReader>> CreateUringReader(int descriptor,
                                                              const std::string& name,
                                                              const DiskReader::Options& options) {
  auto reader = std::make_unique<UringReader>(name, options);
  if (const int error = reader->Open(descriptor, options); error != 0) {
    return absl::UnavailableError(StrCat("io_uring: ", std::strerror(-error)));
  }
  return reader;
}

}  // namespace moesaic
