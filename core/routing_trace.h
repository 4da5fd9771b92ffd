#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace moesaic {

// Which experts the gates of a run chose: recorded by RoutingTraceWriter or generated, and played
// back by benchmarks. docs/routing-traces.md describes the file.

// Shape of the model that the trace is of.
struct RoutingTraceHeader {
  std::string model = "";    // name, for people
  uint64_t fingerprint = 0;  // of the weights; 0 when there are none
  int32_t num_layers = 0;    // with routed experts
  int32_t num_experts = 0;   // of a layer
  int32_t top_k = 0;         // experts of a row
  bool has_weights = false;  // gate weights, as float16
};

struct RoutingRequest {
  uint64_t id = 0;
  std::string tag;  // of its workload; may be empty
};

// Rows of one request at consecutive positions.
struct RoutingRun {
  uint64_t request = 0;  // id while writing; index into RoutingTrace::requests once read
  int32_t first_position = 0;
  int32_t num_rows = 0;
};

struct ExpertRows {
  int32_t expert = 0;
  int32_t rows = 0;
  bool operator==(const ExpertRows&) const = default;
};

// A trace in memory. Records ascend in (step, layer); read-only once made.
struct RoutingTrace {
  struct Record {
    int64_t step = 0;
    int32_t layer = 0;
    int32_t num_rows = 0;
    size_t first_run = 0;  // runs are shared by the layers of a step that have the same rows
    size_t num_runs = 0;
    size_t first_row = 0;  // of `experts` and `weights`, in rows
  };

  RoutingTraceHeader header;
  std::vector<RoutingRequest> requests;
  std::vector<Record> records;
  std::vector<RoutingRun> runs;
  std::vector<uint16_t> experts;  // [rows, top_k], ascending in each row
  std::vector<float> weights;     // [rows, top_k], or empty

  std::span<const RoutingRun> Runs(const Record& record) const {
    return std::span(runs).subspan(record.first_run, record.num_runs);
  }
  // [record.num_rows, top_k]
  std::span<const uint16_t> Experts(const Record& record) const {
    const auto top_k = static_cast<size_t>(header.top_k);
    return std::span(experts).subspan(record.first_row * top_k, record.num_rows * top_k);
  }
  std::span<const float> Weights(const Record& record) const {
    if (weights.empty()) return {};
    const auto top_k = static_cast<size_t>(header.top_k);
    return std::span(weights).subspan(record.first_row * top_k, record.num_rows * top_k);
  }
  // The distinct experts of a record in ascending order, with the rows that chose each.
  void DistinctExperts(const Record& record, std::vector<ExpertRows>& out) const;
};

// InvalidArgument when a field is outside what a trace can hold.
absl::Status CheckRoutingTraceHeader(const RoutingTraceHeader& header);

// Reads a whole trace. `name` is the file's, for messages. InvalidArgument says what was expected
// where, for a file that is no trace, of another version, damaged, cut short or inconsistent;
// ResourceExhausted when it would take over `max_bytes` of memory.
absl::StatusOr<RoutingTrace> ParseRoutingTrace(std::span<const std::byte> file,
                                               std::string_view name,
                                               uint64_t max_bytes = uint64_t{4} << 30);
absl::StatusOr<RoutingTrace> ReadRoutingTrace(const std::filesystem::path& path);

}  // namespace moesaic
