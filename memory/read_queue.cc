#include "memory/read_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/str_cat.h"
#include "memory/file_io.h"
#include "memory/stripe_layout.h"

namespace moesaic {
namespace {

constexpr int32_t kMaxRetries = 1000;  // of one part, after "try again"

}  // namespace

DiskReader::Options ClampReaderOptions(DiskReader::Options options) {
  options.queue_depth = std::clamp(options.queue_depth, 1, 1024);
  options.max_reads = std::clamp(options.max_reads, 1, 4096);
  options.max_part_bytes =
      std::clamp<int64_t>(options.max_part_bytes / kStripeAlignmentBytes * kStripeAlignmentBytes,
                          kStripeAlignmentBytes, int64_t{1} << 30);
  return options;
}

ReadQueue::ReadQueue(std::string name, const DiskReader::Options& options)
    : name_(std::move(name)),
      max_part_bytes_(options.max_part_bytes),
      parts_(options.queue_depth),
      reads_(options.max_reads),
      waiting_(options.max_reads) {
  for (int i = options.queue_depth - 1; i >= 0; --i) free_parts_.push_back(i);
  for (int i = options.max_reads - 1; i >= 0; --i) free_reads_.push_back(i);
  again_.reserve(options.queue_depth);
  finished_.reserve(options.max_reads);
}

void ReadQueue::Add(int64_t offset, std::byte* data, int64_t bytes, uint64_t token) {
  const int32_t number = free_reads_.back();
  free_reads_.pop_back();
  reads_[number] = {.offset = offset, .data = data, .bytes = bytes, .token = token};
  waiting_[(first_waiting_ + num_waiting_++) % waiting_.size()] = number;
}

int ReadQueue::TakePart() {
  if (!again_.empty()) {
    const int number = again_.back();
    again_.pop_back();
    return number;
  }
  if (num_waiting_ == 0 || free_parts_.empty()) return -1;
  const int32_t read_number = waiting_[first_waiting_];
  Read& read = reads_[read_number];
  const int number = free_parts_.back();
  free_parts_.pop_back();
  Part& part = parts_[number];
  part = {.offset = read.offset,
          .data = read.data,
          .bytes = std::min(read.bytes, max_part_bytes_),
          .read = read_number};
  read.offset += part.bytes;
  read.data += part.bytes;
  read.bytes -= part.bytes;
  ++read.parts_under_way;
  if (read.bytes == 0) {
    first_waiting_ = (first_waiting_ + 1) % waiting_.size();
    --num_waiting_;
  }
  return number;
}

void ReadQueue::FinishPart(int number, int64_t result) {
  Part& part = parts_[number];
  Read& read = reads_[part.read];
  const bool interrupted = result == -EINTR || result == -EAGAIN;
  if (interrupted && ++part.retries < kMaxRetries) {
    again_.push_back(number);
    return;
  }
  if (result >= kStripeAlignmentBytes && result < part.bytes) {
    // Goes on from a whole page: the rest of a direct read has to start at one.
    const int64_t whole = result / kStripeAlignmentBytes * kStripeAlignmentBytes;
    part.offset += whole;
    part.data += whole;
    part.bytes -= whole;
    again_.push_back(number);
    return;
  }
  if (result < part.bytes && read.status.ok()) {
    read.status = result < 0
                      ? SystemError(static_cast<int>(-result), name_)
                      : absl::DataLossError(StrCat(name_, ": ends at byte ", part.offset + result));
    if (read.bytes > 0) {
      // The rest is not worth reading. Parts come from the first that waits alone, so it is this.
      read.bytes = 0;
      first_waiting_ = (first_waiting_ + 1) % waiting_.size();
      --num_waiting_;
    }
  }
  free_parts_.push_back(number);
  --read.parts_under_way;
  if (read.parts_under_way > 0 || read.bytes > 0) return;
  finished_.push_back({.token = read.token, .status = std::move(read.status)});
  free_reads_.push_back(part.read);
}

void ReadQueue::TakeFinished(std::vector<DiskReader::Completion>& out) {
  out.insert(out.end(), std::make_move_iterator(finished_.begin()),
             std::make_move_iterator(finished_.end()));
  finished_.clear();
}

}  // namespace moesaic
