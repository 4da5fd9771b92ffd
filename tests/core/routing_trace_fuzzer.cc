// An untrusted routing trace. What is accepted must hold what its own header allows. Checksums are
// mended first, since damage that they find is found at once.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "base/crc32.h"
#include "core/routing_trace.h"
#include "core/routing_trace_format.h"

namespace moesaic {
namespace {

namespace format = routing_trace_format;

void Require(bool condition) {
  if (!condition) std::abort();
}

void MendChecksums(std::vector<std::byte>& file) {
  const std::span<std::byte> bytes(file);
  const auto mend = [&bytes](size_t at, std::span<const std::byte> of) {
    const uint32_t crc = Crc32(of);
    std::memcpy(bytes.data() + at, &crc, sizeof(crc));
  };
  uint32_t name_bytes = 0;
  if (file.size() < format::kFixedHeaderBytes + 4) return;
  std::memcpy(&name_bytes, file.data() + format::kFixedHeaderBytes - 4, 4);
  if (name_bytes > file.size() - format::kFixedHeaderBytes - 4) return;
  size_t at = format::kFixedHeaderBytes + name_bytes;
  mend(at, bytes.first(at));
  at += 4;
  while (file.size() - at >= format::kSectionHeaderBytes) {
    uint32_t size = 0;
    std::memcpy(&size, file.data() + at + 4, 4);
    if (size > file.size() - at - format::kSectionHeaderBytes) return;
    mend(at + 8, bytes.subspan(at + format::kSectionHeaderBytes, size));
    at += format::kSectionHeaderBytes + size;
  }
}

void Check(const RoutingTrace& trace) {
  const RoutingTraceHeader& header = trace.header;
  size_t rows = 0;
  std::vector<ExpertRows> distinct;
  for (size_t i = 0; i < trace.records.size(); ++i) {
    const RoutingTrace::Record& record = trace.records[i];
    Require(record.layer >= 0 && record.layer < header.num_layers && record.step >= 0);
    Require(record.first_row == rows && record.num_rows > 0);
    rows += record.num_rows;
    int64_t of_runs = 0;
    for (const RoutingRun& run : trace.Runs(record)) {
      Require(run.request < trace.requests.size());
      of_runs += run.num_rows;
    }
    Require(of_runs == record.num_rows);
    if (i < 64) trace.DistinctExperts(record, distinct);
  }
  Require(trace.experts.size() == rows * header.top_k);
  Require(trace.weights.size() == (header.has_weights ? trace.experts.size() : 0));
  for (size_t i = 0; i < trace.experts.size(); ++i) {
    Require(trace.experts[i] < header.num_experts);
    Require(i % header.top_k == 0 || trace.experts[i] > trace.experts[i - 1]);
  }
}

}  // namespace
}  // namespace moesaic

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> file(size);
  if (size > 0) std::memcpy(file.data(), data, size);
  moesaic::MendChecksums(file);
  const auto trace = moesaic::ParseRoutingTrace(file, "fuzz", uint64_t{64} << 20);
  if (trace.ok()) moesaic::Check(*trace);
  return 0;
}
