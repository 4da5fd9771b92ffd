#include "core/routing_trace.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "base/checked_math.h"
#include "base/crc32.h"
#include "base/dtype.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "core/routing_trace_format.h"

namespace moesaic {
namespace {

namespace format = routing_trace_format;

template <typename T>
T Load(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

// Takes numbers from the front of a payload; none where it ends too early.
class PayloadReader {
 public:
  explicit PayloadReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool done() const { return at_ == bytes_.size(); }
  size_t at() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  std::optional<std::span<const std::byte>> Bytes(size_t count) {
    if (count > left()) return std::nullopt;
    at_ += count;
    return bytes_.subspan(at_ - count, count);
  }
  std::optional<uint64_t> Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && at_ < bytes_.size(); shift += 7) {
      const auto byte = static_cast<uint64_t>(bytes_[at_++]);
      if (shift == 63 && byte > 1) return std::nullopt;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  }
  std::optional<uint64_t> VarintUpTo(uint64_t limit) {
    const std::optional<uint64_t> value = Varint();
    return value && *value <= limit ? value : std::nullopt;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

class BitReader {
 public:
  explicit BitReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  // Values past the end are ones, which end every unary number as too large.
  uint32_t Bit() {
    const uint32_t bit =
        at_ / 8 < bytes_.size() ? static_cast<uint32_t>(bytes_[at_ / 8]) >> (at_ % 8) & 1u : 1u;
    ++at_;
    return bit;
  }
  uint32_t Bits(uint32_t count) {
    uint32_t value = 0;
    for (uint32_t i = 0; i < count; ++i) value |= Bit() << i;
    return value;
  }
  // Ones before the next zero; more than `limit` where there are more.
  uint32_t Unary(uint32_t limit) {
    uint32_t value = 0;
    while (value <= limit && Bit() != 0) ++value;
    return value;
  }
  size_t bytes_used() const { return CeilDiv<size_t>(at_, 8); }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

class Parser {
 public:
  Parser(std::span<const std::byte> file, std::string_view name, uint64_t max_bytes)
      : file_(file), name_(name), max_bytes_(max_bytes) {}

  absl::StatusOr<RoutingTrace> Parse() {
    MOESAIC_RETURN_IF_ERROR(ParseHeader());
    bool ended = false;
    while (!ended) {
      MOESAIC_ASSIGN_OR_RETURN(ended, ParseSection());
    }
    if (at_ != file_.size()) {
      return Error(StrCat(file_.size() - at_, " bytes follow the end section"));
    }
    return std::move(trace_);
  }

 private:
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(StrCat("routing trace ", name_, ": ", what));
  }
  absl::Status CutShort(std::string_view where) const {
    return Error(StrCat("cut short in ", where, " at byte ", at_, " of ", file_.size(), ", after ",
                        trace_.records.size(),
                        " records; a complete trace ends with an end "
                        "section"));
  }
  absl::Status BadOperation(size_t at, std::string_view what) const {
    return Error(StrCat("record ", trace_.records.size(), ", byte ", section_ + at, ": ", what));
  }

  absl::Status ParseHeader();
  absl::StatusOr<bool> ParseSection();
  absl::Status ParseOperations(std::span<const std::byte> payload);
  absl::Status ParseRequest(PayloadReader& reader);
  absl::Status ParseRecord(PayloadReader& reader, bool same_rows);
  absl::Status ParseRuns(PayloadReader& reader, RoutingTrace::Record& record);
  absl::Status ParseExperts(PayloadReader& reader, const RoutingTrace::Record& record);
  absl::Status Reserve(uint64_t bytes);

  const std::span<const std::byte> file_;
  const std::string_view name_;
  const uint64_t max_bytes_;
  size_t at_ = 0;       // in the file
  size_t section_ = 0;  // where its payload begins
  uint64_t used_bytes_ = 0;
  uint64_t num_rows_ = 0;
  uint32_t gap_bits_ = 0;
  absl::flat_hash_set<uint64_t> request_ids_;
  RoutingTrace trace_;
};

// Every growth of the trace is asked for here first.
absl::Status Parser::Reserve(uint64_t bytes) {
  used_bytes_ += bytes;
  if (used_bytes_ <= max_bytes_) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      StrCat("routing trace ", name_, ": takes over ", max_bytes_, " bytes of memory"));
}

absl::Status Parser::ParseHeader() {
  if (file_.size() < format::kMagic.size() ||
      std::memcmp(file_.data(), format::kMagic.data(), format::kMagic.size()) != 0) {
    return Error(StrCat("not a routing trace: expected it to begin with ", format::kMagic));
  }
  if (file_.size() < format::kFixedHeaderBytes) return CutShort("the header");
  const uint32_t version = Load<uint32_t>(file_, 8);
  if (version != format::kVersion) {
    return Error(StrCat("version ", version, ", expected ", format::kVersion));
  }
  const uint32_t flags = Load<uint32_t>(file_, 12);
  const uint32_t name_bytes = Load<uint32_t>(file_, 36);
  if (name_bytes > format::kMaxNameBytes) {
    return Error(
        StrCat("a model name of ", name_bytes, " bytes, expected at most ", format::kMaxNameBytes));
  }
  const size_t crc_at = format::kFixedHeaderBytes + name_bytes;
  if (file_.size() < crc_at + 4) return CutShort("the header");
  if (Load<uint32_t>(file_, crc_at) != Crc32(file_.first(crc_at))) {
    return Error("the header is damaged: its checksum does not match");
  }
  if ((flags & ~format::kFlagWeights) != 0) {
    return Error(StrCat("unknown flags ", flags, ", expected at most ", format::kFlagWeights));
  }
  RoutingTraceHeader& header = trace_.header;
  header.has_weights = (flags & format::kFlagWeights) != 0;
  header.fingerprint = Load<uint64_t>(file_, 16);
  const uint32_t layers = Load<uint32_t>(file_, 24);
  const uint32_t experts = Load<uint32_t>(file_, 28);
  const uint32_t top_k = Load<uint32_t>(file_, 32);
  constexpr uint32_t kMaxInt = std::numeric_limits<int32_t>::max();
  header.num_layers = static_cast<int32_t>(std::min(layers, kMaxInt));
  header.num_experts = static_cast<int32_t>(std::min(experts, kMaxInt));
  header.top_k = static_cast<int32_t>(std::min(top_k, kMaxInt));
  header.model.assign(reinterpret_cast<const char*>(file_.data()) + format::kFixedHeaderBytes,
                      name_bytes);
  if (const absl::Status status = CheckRoutingTraceHeader(header); !status.ok()) {
    return Error(std::string(status.message()));
  }
  gap_bits_ = format::GapBits(experts, top_k);
  at_ = crc_at + 4;
  return absl::OkStatus();
}

// True at the end section.
absl::StatusOr<bool> Parser::ParseSection() {
  if (file_.size() - at_ < format::kSectionHeaderBytes) return CutShort("a section's header");
  const uint32_t kind = Load<uint32_t>(file_, at_);
  const uint32_t bytes = Load<uint32_t>(file_, at_ + 4);
  const uint32_t crc = Load<uint32_t>(file_, at_ + 8);
  if (kind != format::kSectionRecords && kind != format::kSectionEnd) {
    return Error(StrCat("byte ", at_, ": unknown section ", kind, ", expected 1 or 2"));
  }
  if (bytes > format::kMaxSectionBytes) {
    return Error(StrCat("byte ", at_, ": a section of ", bytes, " bytes, expected at most ",
                        format::kMaxSectionBytes));
  }
  section_ = at_ + format::kSectionHeaderBytes;
  if (file_.size() - section_ < bytes) return CutShort("a section");
  const std::span<const std::byte> payload = file_.subspan(section_, bytes);
  if (Crc32(payload) != crc) {
    return Error(StrCat("the section at byte ", at_, " is damaged: its checksum does not match"));
  }
  at_ = section_ + bytes;
  if (kind == format::kSectionRecords) {
    MOESAIC_RETURN_IF_ERROR(ParseOperations(payload));
    return false;
  }
  if (bytes != format::kEndBytes) {
    return Error(StrCat("an end section of ", bytes, " bytes, expected ", format::kEndBytes));
  }
  const uint64_t records = Load<uint64_t>(payload, 0);
  const uint64_t rows = Load<uint64_t>(payload, 8);
  if (records != trace_.records.size() || rows != num_rows_) {
    return Error(StrCat("holds ", trace_.records.size(), " records of ", num_rows_,
                        " rows, expected ", records, " of ", rows, " by its end section"));
  }
  return true;
}

absl::Status Parser::ParseOperations(std::span<const std::byte> payload) {
  PayloadReader reader(payload);
  while (!reader.done()) {
    const size_t at = reader.at();
    const auto operation = static_cast<uint8_t>((*reader.Bytes(1))[0]);
    switch (operation) {
      case format::kOpRequest:
        MOESAIC_RETURN_IF_ERROR(ParseRequest(reader));
        break;
      case format::kOpRecord:
      case format::kOpRecordSameRows:
        MOESAIC_RETURN_IF_ERROR(ParseRecord(reader, operation == format::kOpRecordSameRows));
        break;
      default:
        return BadOperation(at, StrCat("unknown operation ", operation, ", expected 0 to 2"));
    }
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseRequest(PayloadReader& reader) {
  const size_t at = reader.at();
  const std::optional<uint64_t> id = reader.Varint();
  const std::optional<uint64_t> tag_bytes = reader.VarintUpTo(format::kMaxTagBytes);
  const auto tag = tag_bytes ? reader.Bytes(*tag_bytes) : std::nullopt;
  if (!id || !tag) return BadOperation(at, "expected a request's id and tag");
  if (!request_ids_.insert(*id).second) {
    return BadOperation(at, StrCat("request ", *id, " is declared twice"));
  }
  MOESAIC_RETURN_IF_ERROR(Reserve(sizeof(RoutingRequest) + *tag_bytes + 2 * sizeof(uint64_t)));
  trace_.requests.push_back(
      {*id, std::string(reinterpret_cast<const char*>(tag->data()), tag->size())});
  return absl::OkStatus();
}

absl::Status Parser::ParseRecord(PayloadReader& reader, bool same_rows) {
  const size_t at = reader.at();
  RoutingTrace::Record record;
  const int64_t last_step = trace_.records.empty() ? 0 : trace_.records.back().step;
  const std::optional<uint64_t> ahead =
      reader.VarintUpTo(static_cast<uint64_t>(std::numeric_limits<int64_t>::max() - last_step));
  const std::optional<uint64_t> layer =
      reader.VarintUpTo(static_cast<uint64_t>(trace_.header.num_layers) - 1);
  if (!ahead || !layer) {
    return BadOperation(at, StrCat("expected a step and a layer below ", trace_.header.num_layers));
  }
  record.step = last_step + static_cast<int64_t>(*ahead);
  record.layer = static_cast<int32_t>(*layer);
  if (!trace_.records.empty() && *ahead == 0 && record.layer <= trace_.records.back().layer) {
    return BadOperation(at,
                        StrCat("layer ", record.layer, " after layer ", trace_.records.back().layer,
                               " of the same step, expected ascending layers"));
  }
  if (same_rows) {
    if (trace_.records.empty()) return BadOperation(at, "the first record has no rows of its own");
    const RoutingTrace::Record& previous = trace_.records.back();
    record.num_rows = previous.num_rows;
    record.first_run = previous.first_run;
    record.num_runs = previous.num_runs;
  } else {
    MOESAIC_RETURN_IF_ERROR(ParseRuns(reader, record));
  }
  record.first_row = num_rows_;
  MOESAIC_RETURN_IF_ERROR(ParseExperts(reader, record));
  MOESAIC_RETURN_IF_ERROR(Reserve(sizeof(RoutingTrace::Record)));
  num_rows_ += record.num_rows;
  trace_.records.push_back(record);
  return absl::OkStatus();
}

absl::Status Parser::ParseRuns(PayloadReader& reader, RoutingTrace::Record& record) {
  const size_t at = reader.at();
  constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();
  const std::optional<uint64_t> num_runs = reader.VarintUpTo(reader.left());
  if (!num_runs || *num_runs == 0) return BadOperation(at, "expected the number of runs of rows");
  MOESAIC_RETURN_IF_ERROR(Reserve(*num_runs * sizeof(RoutingRun)));
  record.first_run = trace_.runs.size();
  record.num_runs = *num_runs;
  int64_t rows = 0;
  for (uint64_t i = 0; i < *num_runs; ++i) {
    const std::optional<uint64_t> request = reader.Varint();
    const std::optional<uint64_t> position = reader.VarintUpTo(kMaxInt);
    const std::optional<uint64_t> count =
        position ? reader.VarintUpTo(static_cast<uint64_t>(kMaxInt) - *position) : std::nullopt;
    if (!request || !count || *count == 0) {
      return BadOperation(at, "expected a run's request, position and number of rows");
    }
    if (*request >= trace_.requests.size()) {
      return BadOperation(at, StrCat("request ", *request, " of a run, expected one of the ",
                                     trace_.requests.size(), " declared so far"));
    }
    rows += static_cast<int64_t>(*count);
    if (rows > kMaxInt) return BadOperation(at, "too many rows");
    trace_.runs.push_back(
        {*request, static_cast<int32_t>(*position), static_cast<int32_t>(*count)});
  }
  record.num_rows = static_cast<int32_t>(rows);
  return absl::OkStatus();
}

absl::Status Parser::ParseExperts(PayloadReader& reader, const RoutingTrace::Record& record) {
  const size_t at = reader.at();
  const auto top_k = static_cast<uint64_t>(trace_.header.top_k);
  const auto num_experts = static_cast<uint32_t>(trace_.header.num_experts);
  const uint64_t count = static_cast<uint64_t>(record.num_rows) * top_k;
  // An id takes a bit or more, so the payload's length bounds what a false count can allocate.
  if (CeilDiv<uint64_t>(count * (1 + gap_bits_), 8) > reader.left()) {
    return BadOperation(at, StrCat("ends inside the experts of ", record.num_rows, " rows"));
  }
  MOESAIC_RETURN_IF_ERROR(
      Reserve(count * (sizeof(uint16_t) + (trace_.header.has_weights ? sizeof(float) : 0))));
  BitReader bits(*reader.Bytes(reader.left()));
  for (int32_t row = 0; row < record.num_rows; ++row) {
    uint64_t next = 0;  // the smallest id that may come
    for (uint64_t k = 0; k < top_k; ++k) {
      const uint64_t high = bits.Unary(num_experts >> gap_bits_);
      const uint64_t expert = next + (high << gap_bits_) + bits.Bits(gap_bits_);
      if (expert >= num_experts) {
        return BadOperation(at, StrCat("row ", row, " names expert ", expert, ", expected ", top_k,
                                       " ascending ids below ", num_experts));
      }
      trace_.experts.push_back(static_cast<uint16_t>(expert));
      next = expert + 1;
    }
  }
  reader = PayloadReader(file_.subspan(section_, at_ - section_));
  const bool inside = reader.Bytes(at + bits.bytes_used()).has_value();
  const auto weights = !inside                     ? std::nullopt
                       : trace_.header.has_weights ? reader.Bytes(count * sizeof(uint16_t))
                                                   : reader.Bytes(0);
  if (!weights) {
    return BadOperation(at, StrCat("ends inside the experts of ", record.num_rows, " rows"));
  }
  for (size_t i = 0; i < weights->size(); i += sizeof(uint16_t)) {
    trace_.weights.push_back(ToFloat(Float16{Load<uint16_t>(*weights, i)}));
  }
  return absl::OkStatus();
}

}  // namespace

void RoutingTrace::DistinctExperts(const Record& record, std::vector<ExpertRows>& out) const {
  out.clear();
  std::vector<int32_t> rows(header.num_experts);
  for (const uint16_t expert : Experts(record)) ++rows[expert];
  for (int32_t expert = 0; expert < header.num_experts; ++expert) {
    if (rows[expert] > 0) out.push_back({expert, rows[expert]});
  }
}

absl::Status CheckRoutingTraceHeader(const RoutingTraceHeader& header) {
  const auto check = [](const char* what, int64_t value, int64_t limit) {
    if (value >= 1 && value <= limit) return absl::OkStatus();
    return absl::InvalidArgumentError(StrCat(value, " ", what, ", expected 1 to ", limit));
  };
  MOESAIC_RETURN_IF_ERROR(check("layers", header.num_layers, format::kMaxLayers));
  MOESAIC_RETURN_IF_ERROR(check("experts", header.num_experts, format::kMaxExperts));
  MOESAIC_RETURN_IF_ERROR(check("experts of a row", header.top_k,
                                std::min<int64_t>(header.num_experts, format::kMaxTopK)));
  if (header.model.size() > format::kMaxNameBytes) {
    return absl::InvalidArgumentError(StrCat("a model name of ", header.model.size(),
                                             " bytes, expected at most ", format::kMaxNameBytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<RoutingTrace> ParseRoutingTrace(std::span<const std::byte> file,
                                               std::string_view name,
                                               uint64_t max_bytes) {
  return Parser(file, name, max_bytes).Parse();
}

absl::StatusOr<RoutingTrace> ReadRoutingTrace(const std::filesystem::path& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) {
    return absl::NotFoundError(StrCat("routing trace ", path.string(), ": cannot open it"));
  }
  constexpr uintmax_t kMaxFileBytes = uintmax_t{1} << 30;
  if (size > kMaxFileBytes) {
    return absl::ResourceExhaustedError(StrCat("routing trace ", path.string(), ": has ", size,
                                               " bytes, expected at most ", kMaxFileBytes));
  }
  std::vector<std::byte> bytes(size);
  if (!file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size))) {
    return absl::UnavailableError(StrCat("routing trace ", path.string(), ": cannot read it"));
  }
  return ParseRoutingTrace(bytes, path.string());
}

}  // namespace moesaic
