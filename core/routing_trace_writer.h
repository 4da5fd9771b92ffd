#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "core/routing_trace.h"

namespace moesaic {

// Records routing into a file as it happens. Append() only encodes; a thread of its own writes, so
// that a busy disk holds up the caller no sooner than some tens of MiB are waiting.
//
// Owner: who records. Thread: one calls AddRequest, Append and Finish. Memory is bounded by the
// sections that wait, and 16 bytes per request.
class RoutingTraceWriter {
 public:
  // Creates or replaces the file. InvalidArgument for an impossible shape, Unavailable when the
  // file cannot be made.
  static absl::StatusOr<std::unique_ptr<RoutingTraceWriter>> Create(
      const std::filesystem::path& path, const RoutingTraceHeader& header);
  // Without Finish() the file is a trace cut short.
  ~RoutingTraceWriter();
  RoutingTraceWriter(const RoutingTraceWriter&) = delete;
  RoutingTraceWriter& operator=(const RoutingTraceWriter&) = delete;

  // Names the workload of a request before its first rows; later calls for it change nothing. A
  // request that was not added has an empty tag.
  absl::Status AddRequest(uint64_t request, std::string_view tag);
  // What one layer of one step chose: `experts` and `weights` are [rows of all runs, top_k], in any
  // order within a row; `weights` is ignored when the header says none. (step, layer) ascend.
  // InvalidArgument, and nothing recorded, for anything else; the writing thread's error if it had
  // one.
  absl::Status Append(int64_t step,
                      int32_t layer,
                      std::span<const RoutingRun> runs,
                      std::span<const int32_t> experts,
                      std::span<const float> weights);
  // Writes what is left and the end; nothing may be appended afterwards.
  absl::Status Finish();

  const RoutingTraceHeader& header() const { return header_; }

 private:
  RoutingTraceWriter(std::filesystem::path path, RoutingTraceHeader header, int file);

  absl::Status CheckAppend(int64_t step,
                           int32_t layer,
                           std::span<const RoutingRun> runs,
                           std::span<const int32_t> experts,
                           std::span<const float> weights) const;
  // Sorts each row into `sorted_`; InvalidArgument when an id is out of range or twice in a row.
  absl::Status SortRows(std::span<const int32_t> experts, std::span<const float> weights);
  uint32_t RequestIndex(uint64_t request, std::string_view tag);
  void EncodeRow(std::span<const std::pair<int32_t, float>> row);
  void PutVarint(uint64_t value);
  void PutBits(uint32_t value, uint32_t count);
  void FlushBits();
  // Hands the section to the writing thread, which closes the file after the last one.
  absl::Status Queue(uint32_t kind, bool last);
  absl::Status status() ABSL_LOCKS_EXCLUDED(mutex_);
  void WriteLoop();

  const std::filesystem::path path_;
  const RoutingTraceHeader header_;
  const int file_;
  const uint32_t gap_bits_;

  // Of the recording thread.
  absl::flat_hash_map<uint64_t, uint32_t> request_index_;
  std::vector<std::byte> section_;                 // with room for its header in front
  std::vector<std::pair<int32_t, float>> sorted_;  // [rows, top_k]
  std::vector<RoutingRun> last_runs_;
  uint32_t bits_ = 0;
  uint32_t num_bits_ = 0;
  int64_t last_step_ = -1;
  int32_t last_layer_ = -1;
  uint64_t num_records_ = 0;
  uint64_t num_rows_ = 0;
  bool finished_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::vector<std::byte>> queue_ ABSL_GUARDED_BY(mutex_);
  size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace moesaic
