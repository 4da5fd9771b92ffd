#include "core/routing_trace_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string>

#include "base/checked_math.h"
#include "base/crc32.h"
#include "base/dtype.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "core/routing_trace_format.h"

namespace moesaic {
namespace {

namespace format = routing_trace_format;

constexpr size_t kSectionBytes = 256 << 10;  // a section is queued once it has as many
constexpr size_t kMaxQueuedBytes = 32 << 20;

template <typename T>
void Put(std::vector<std::byte>& out, T value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof(T));
}

void PutText(std::vector<std::byte>& out, std::string_view text) {
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  out.insert(out.end(), bytes, bytes + text.size());
}

std::vector<std::byte> EncodeHeader(const RoutingTraceHeader& header) {
  std::vector<std::byte> out;
  PutText(out, format::kMagic);
  Put(out, format::kVersion);
  Put<uint32_t>(out, header.has_weights ? format::kFlagWeights : 0);
  Put(out, header.fingerprint);
  Put(out, header.num_layers);
  Put(out, header.num_experts);
  Put(out, header.top_k);
  Put(out, static_cast<uint32_t>(header.model.size()));
  PutText(out, header.model);
  Put(out, Crc32(out));
  return out;
}

absl::Status FileError(const std::filesystem::path& path, std::string_view what) {
  return absl::UnavailableError(
      StrCat("routing trace ", path.string(), ": cannot ", what, ": ", std::strerror(errno)));
}

bool SameRuns(std::span<const RoutingRun> a, std::span<const RoutingRun> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const RoutingRun& x, const RoutingRun& y) {
                      return x.request == y.request && x.first_position == y.first_position &&
                             x.num_rows == y.num_rows;
                    });
}

}  // namespace

absl::StatusOr<std::unique_ptr<RoutingTraceWriter>> RoutingTraceWriter::Create(
    const std::filesystem::path& path, const RoutingTraceHeader& header) {
  MOESAIC_RETURN_IF_ERROR(CheckRoutingTraceHeader(header));
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return FileError(path, "create it");
  std::unique_ptr<RoutingTraceWriter> writer(new RoutingTraceWriter(path, header, file));
  return writer;
}

RoutingTraceWriter::RoutingTraceWriter(std::filesystem::path path,
                                       RoutingTraceHeader header,
                                       int file)
    : path_(std::move(path)),
      header_(std::move(header)),
      file_(file),
      gap_bits_(format::GapBits(static_cast<uint32_t>(header_.num_experts),
                                static_cast<uint32_t>(header_.top_k))),
      section_(format::kSectionHeaderBytes) {
  queue_.push_back(EncodeHeader(header_));
  queued_bytes_ = queue_.back().size();
  thread_ = std::thread([this] { WriteLoop(); });
}

RoutingTraceWriter::~RoutingTraceWriter() {
  if (!finished_) (void)Queue(format::kSectionRecords, /*last=*/true);
  if (thread_.joinable()) thread_.join();
}

void RoutingTraceWriter::WriteLoop() {
  std::vector<std::vector<std::byte>> sections;
  bool done = false;
  while (!done) {
    sections.clear();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(
          lock, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !queue_.empty() || closing_; });
      sections.swap(queue_);
      done = closing_;
      if (!status_.ok()) sections.clear();
    }
    absl::Status status;
    for (const std::vector<std::byte>& section : sections) {
      size_t written = 0;
      while (status.ok() && written < section.size()) {
        const ssize_t count = write(file_, section.data() + written, section.size() - written);
        if (count >= 0) {
          written += static_cast<size_t>(count);
        } else if (errno != EINTR) {
          status = FileError(path_, "write to it");
        }
      }
    }
    if (done && close(file_) != 0 && status.ok()) status = FileError(path_, "close it");
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      queued_bytes_ = 0;
      for (const std::vector<std::byte>& section : queue_) queued_bytes_ += section.size();
      if (status_.ok()) status_ = status;
    }
    changed_.notify_all();
  }
}

absl::Status RoutingTraceWriter::Queue(uint32_t kind, bool last) {
  if (section_.size() > format::kSectionHeaderBytes) {
    const std::span<const std::byte> payload =
        std::span<const std::byte>(section_).subspan(format::kSectionHeaderBytes);
    const uint32_t fields[3] = {kind, static_cast<uint32_t>(payload.size()), Crc32(payload)};
    static_assert(sizeof(fields) == format::kSectionHeaderBytes);
    std::memcpy(section_.data(), fields, sizeof(fields));
  } else {
    section_.clear();
  }
  std::vector<std::byte> section(format::kSectionHeaderBytes);
  section.swap(section_);
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(
        lock, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return queued_bytes_ < kMaxQueuedBytes; });
    queued_bytes_ += section.size();
    if (!section.empty()) queue_.push_back(std::move(section));
    closing_ = last;
  }
  changed_.notify_all();
  return status();
}

absl::Status RoutingTraceWriter::status() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return status_;
}

void RoutingTraceWriter::PutVarint(uint64_t value) {
  while (value >= 0x80) {
    section_.push_back(static_cast<std::byte>(value | 0x80));
    value >>= 7;
  }
  section_.push_back(static_cast<std::byte>(value));
}

void RoutingTraceWriter::PutBits(uint32_t value, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    bits_ |= (value >> i & 1u) << num_bits_;
    if (++num_bits_ == 8) FlushBits();
  }
}

void RoutingTraceWriter::FlushBits() {
  if (num_bits_ == 0) return;
  section_.push_back(static_cast<std::byte>(bits_));
  bits_ = 0;
  num_bits_ = 0;
}

uint32_t RoutingTraceWriter::RequestIndex(uint64_t request, std::string_view tag) {
  const auto [it, fresh] =
      request_index_.emplace(request, static_cast<uint32_t>(request_index_.size()));
  if (fresh) {
    section_.push_back(std::byte{format::kOpRequest});
    PutVarint(request);
    PutVarint(tag.size());
    PutText(section_, tag);
  }
  return it->second;
}

absl::Status RoutingTraceWriter::AddRequest(uint64_t request, std::string_view tag) {
  if (finished_) return absl::FailedPreconditionError("the routing trace is finished");
  if (tag.size() > format::kMaxTagBytes) {
    return absl::InvalidArgumentError(StrCat("a workload tag of ", tag.size(),
                                             " bytes, expected at most ", format::kMaxTagBytes));
  }
  RequestIndex(request, tag);
  return absl::OkStatus();
}

absl::Status RoutingTraceWriter::CheckAppend(int64_t step,
                                             int32_t layer,
                                             std::span<const RoutingRun> runs,
                                             std::span<const int32_t> experts,
                                             std::span<const float> weights) const {
  if (finished_) return absl::FailedPreconditionError("the routing trace is finished");
  if (step < 0 || layer < 0 || layer >= header_.num_layers || step < last_step_ ||
      (step == last_step_ && layer <= last_layer_)) {
    return absl::InvalidArgumentError(StrCat("routing of step ", step, ", layer ", layer,
                                             " after step ", last_step_, ", layer ", last_layer_,
                                             " of ", header_.num_layers, " layers"));
  }
  constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();
  int64_t rows = 0;
  for (const RoutingRun& run : runs) {
    rows += run.num_rows;
    if (run.num_rows < 1 || run.first_position < 0 ||
        int64_t{run.first_position} + run.num_rows > kMaxInt || rows > kMaxInt) {
      return absl::InvalidArgumentError(
          StrCat("a run of ", run.num_rows, " rows at position ", run.first_position));
    }
  }
  const int64_t expected = rows * header_.top_k;
  if (rows == 0 || static_cast<int64_t>(experts.size()) != expected ||
      (header_.has_weights && static_cast<int64_t>(weights.size()) != expected)) {
    return absl::InvalidArgumentError(StrCat("routing of ", rows, " rows with ", experts.size(),
                                             " experts and ", weights.size(), " weights, expected ",
                                             header_.top_k, " a row"));
  }
  // Far beyond any step, and what keeps a section within its limit.
  if (expected > (int64_t{1} << 22)) {
    return absl::InvalidArgumentError(StrCat("routing of ", rows, " rows in one record"));
  }
  return absl::OkStatus();
}

absl::Status RoutingTraceWriter::SortRows(std::span<const int32_t> experts,
                                          std::span<const float> weights) {
  const auto top_k = static_cast<size_t>(header_.top_k);
  sorted_.resize(experts.size());
  for (size_t i = 0; i < experts.size(); ++i) {
    sorted_[i] = {experts[i], header_.has_weights ? weights[i] : 0.0f};
  }
  for (size_t row = 0; row < sorted_.size(); row += top_k) {
    const auto begin = sorted_.begin() + static_cast<ptrdiff_t>(row);
    const auto end = begin + static_cast<ptrdiff_t>(top_k);
    std::sort(begin, end, [](const auto& a, const auto& b) { return a.first < b.first; });
    const bool twice = std::adjacent_find(begin, end, [](const auto& a, const auto& b) {
                         return a.first == b.first;
                       }) != end;
    if (twice || begin->first < 0 || (end - 1)->first >= header_.num_experts) {
      return absl::InvalidArgumentError(
          StrCat("row ", row / top_k, " names experts ", begin->first, " to ", (end - 1)->first,
                 ", expected distinct ones below ", header_.num_experts));
    }
  }
  return absl::OkStatus();
}

void RoutingTraceWriter::EncodeRow(std::span<const std::pair<int32_t, float>> row) {
  int32_t next = 0;
  for (const auto& [expert, weight] : row) {
    const auto gap = static_cast<uint32_t>(expert - next);
    for (uint32_t ones = gap >> gap_bits_; ones > 0; --ones) PutBits(1, 1);
    PutBits(0, 1);
    PutBits(gap, gap_bits_);
    next = expert + 1;
  }
}

absl::Status RoutingTraceWriter::Append(int64_t step,
                                        int32_t layer,
                                        std::span<const RoutingRun> runs,
                                        std::span<const int32_t> experts,
                                        std::span<const float> weights) {
  MOESAIC_RETURN_IF_ERROR(CheckAppend(step, layer, runs, experts, weights));
  MOESAIC_RETURN_IF_ERROR(SortRows(experts, weights));
  for (const RoutingRun& run : runs) RequestIndex(run.request, "");
  const bool same_rows = SameRuns(runs, last_runs_);
  section_.push_back(std::byte{same_rows ? format::kOpRecordSameRows : format::kOpRecord});
  PutVarint(static_cast<uint64_t>(step - std::max<int64_t>(last_step_, 0)));
  PutVarint(static_cast<uint64_t>(layer));
  int64_t rows = 0;
  if (!same_rows) PutVarint(runs.size());
  for (const RoutingRun& run : runs) {
    rows += run.num_rows;
    if (same_rows) continue;
    PutVarint(request_index_.at(run.request));
    PutVarint(static_cast<uint64_t>(run.first_position));
    PutVarint(static_cast<uint64_t>(run.num_rows));
  }
  if (!same_rows) last_runs_.assign(runs.begin(), runs.end());
  const std::span<const std::pair<int32_t, float>> sorted(sorted_);
  for (size_t row = 0; row < sorted.size(); row += header_.top_k) {
    EncodeRow(sorted.subspan(row, header_.top_k));
  }
  FlushBits();
  if (header_.has_weights) {
    for (const auto& [expert, weight] : sorted) Put(section_, ToFloat16(weight).bits);
  }
  last_step_ = step;
  last_layer_ = layer;
  ++num_records_;
  num_rows_ += static_cast<uint64_t>(rows);
  if (section_.size() < kSectionBytes) return status();
  return Queue(format::kSectionRecords, /*last=*/false);
}

absl::Status RoutingTraceWriter::Finish() {
  if (finished_) return absl::FailedPreconditionError("the routing trace is finished");
  finished_ = true;
  const absl::Status queued = Queue(format::kSectionRecords, /*last=*/false);
  if (queued.ok()) {
    Put(section_, num_records_);
    Put(section_, num_rows_);
  }
  (void)Queue(format::kSectionEnd, /*last=*/true);
  thread_.join();
  return status();
}

}  // namespace moesaic
