#pragma once

// Routing traces for tests, written by RoutingTraceWriter.

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/routing_trace.h"
#include "core/routing_trace_writer.h"

namespace moesaic {

inline std::filesystem::path TracePath(const std::string& name) {
  return std::filesystem::path(testing::TempDir()) /
         (name + "." + std::to_string(getpid()) + ".trace");
}

inline std::string FileBytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline absl::StatusOr<RoutingTrace> ParseBytes(const std::string& bytes,
                                               uint64_t max_bytes = uint64_t{1} << 30) {
  return ParseRoutingTrace(std::as_bytes(std::span(bytes)), "t.trace", max_bytes);
}

// Two requests over three steps, the second of which skips a layer.
inline void WriteSmallTrace(const std::filesystem::path& path, bool has_weights) {
  auto writer = RoutingTraceWriter::Create(path, {.model = "small",
                                                  .fingerprint = 0x1234,
                                                  .num_layers = 2,
                                                  .num_experts = 8,
                                                  .top_k = 2,
                                                  .has_weights = has_weights});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->AddRequest(70, "chat").ok());
  const std::vector<RoutingRun> prefill = {{70, 0, 2}};
  const std::vector<RoutingRun> decode = {{70, 2, 1}, {900, 5, 1}};
  const auto append = [&](int64_t step, int32_t layer, const std::vector<RoutingRun>& runs,
                          const std::vector<int32_t>& experts) {
    const absl::Status status = (*writer)->Append(step, layer, runs, experts,
                                                  std::vector<float>{0.75f, 0.25f, 0.5f, 0.125f});
    ASSERT_TRUE(status.ok()) << status;
  };
  append(10, 0, prefill, {7, 0, 3, 2});
  append(10, 1, prefill, {4, 5, 5, 6});
  append(11, 1, decode, {1, 0, 6, 7});
  append(13, 0, decode, {0, 7, 7, 0});
  const absl::Status status = (*writer)->Finish();
  ASSERT_TRUE(status.ok()) << status;
}

}  // namespace moesaic
