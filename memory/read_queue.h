#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "memory/disk_reader.h"

namespace moesaic {

// The bookkeeping that every DiskReader shares: reads in the order of their start, cut into parts,
// and what becomes of each. Owner: a DiskReader. Thread: one at a time. No allocation after
// construction.
class ReadQueue {
 public:
  struct Part {
    int64_t offset = 0;
    std::byte* data = nullptr;
    int64_t bytes = 0;
    int32_t read = 0;
    int32_t retries = 0;
  };

  ReadQueue(std::string name, const DiskReader::Options& options);

  void Add(int64_t offset, std::byte* data, int64_t bytes, uint64_t token);
  // A part to read now, by its number, or -1: there is none, or queue_depth are under way.
  int TakePart();
  const Part& part(int number) const { return parts_[number]; }
  // What the system said: bytes read, or minus an errno.
  void FinishPart(int number, int64_t result);

  bool has_finished() const { return !finished_.empty(); }
  void TakeFinished(std::vector<DiskReader::Completion>& out);

 private:
  struct Read {
    int64_t offset = 0;  // of what has not become a part yet
    std::byte* data = nullptr;
    int64_t bytes = 0;
    uint64_t token = 0;
    int parts_under_way = 0;
    absl::Status status = {};
  };

  const std::string name_;
  const int64_t max_part_bytes_;
  std::vector<Part> parts_;
  std::vector<int> free_parts_;
  std::vector<int> again_;  // parts to read on with
  std::vector<Read> reads_;
  std::vector<int32_t> free_reads_;
  std::vector<int32_t> waiting_;  // a ring of reads that have parts left
  size_t first_waiting_ = 0;
  size_t num_waiting_ = 0;
  std::vector<DiskReader::Completion> finished_;
};

// `options` with the bounds that Create states; what a kernel's ring can hold.
DiskReader::Options ClampReaderOptions(DiskReader::Options options);

}  // namespace moesaic
