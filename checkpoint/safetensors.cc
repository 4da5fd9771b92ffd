#include "checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "base/checked_math.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"

namespace moesaic {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored little-endian");

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxTensors = size_t{1} << 18;    // the largest public MoE models hold 1e5
constexpr size_t kMaxRank = 16;
// A fault on a mapped file maps up to this many neighbouring bytes that are in the page cache.
constexpr uintptr_t kFaultAroundBytes = 64 * 1024;

struct StoredType {
  std::string_view name;
  int bits;
  std::optional<DType> dtype;
};

constexpr std::array<StoredType, 22> kStoredTypes = {{
    {"F32", 32, DType::kFloat32},     {"F16", 16, DType::kFloat16},
    {"BF16", 16, DType::kBFloat16},   {"BOOL", 8, std::nullopt},
    {"F4", 4, std::nullopt},          {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},     {"U8", 8, std::nullopt},
    {"I8", 8, std::nullopt},          {"F8_E5M2", 8, std::nullopt},
    {"F8_E4M3", 8, std::nullopt},     {"F8_E8M0", 8, std::nullopt},
    {"F8_E4M3FNUZ", 8, std::nullopt}, {"F8_E5M2FNUZ", 8, std::nullopt},
    {"I16", 16, std::nullopt},        {"U16", 16, std::nullopt},
    {"I32", 32, std::nullopt},        {"U32", 32, std::nullopt},
    {"I64", 64, std::nullopt},        {"U64", 64, std::nullopt},
    {"F64", 64, std::nullopt},        {"C64", 64, std::nullopt},
}};

const StoredType* FindStoredType(std::string_view name) {
  const auto found = std::find_if(kStoredTypes.begin(), kStoredTypes.end(),
                                  [&](const StoredType& type) { return type.name == name; });
  return found == kStoredTypes.end() ? nullptr : &*found;
}

// A tensor name as it appears in an error message.
std::string Shown(std::string_view name) {
  return name.size() <= 200 ? std::string(name) : StrCat(name.substr(0, 200), "...");
}

struct Span {
  uint64_t begin = 0;
  uint64_t end = 0;
  const std::string* name = nullptr;
};

std::optional<uint64_t> AsSize(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const uint64_t size = value.get<uint64_t>();
  if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return size;
}

// The bytes that `shape` elements of `type` take, when that is a whole number that fits.
std::optional<uint64_t> TensorBytes(const StoredType& type, const std::vector<int64_t>& shape) {
  std::optional<uint64_t> count = 1;
  for (const int64_t extent : shape) {
    count = CheckedMul(*count, static_cast<uint64_t>(extent));
    if (!count.has_value()) return std::nullopt;
  }
  const std::optional<uint64_t> bits = CheckedMul(*count, static_cast<uint64_t>(type.bits));
  if (!bits.has_value() || *bits % 8 != 0) return std::nullopt;
  return *bits / 8;
}

absl::StatusOr<TensorView> ParseTensor(const std::string& name,
                                       const Json& info,
                                       std::span<const std::byte> buffer,
                                       std::string_view what,
                                       Span* span) {
  const auto invalid = [&](std::string_view problem) {
    return absl::InvalidArgumentError(StrCat(what, ": tensor \"", Shown(name), "\": ", problem));
  };
  if (!info.is_object()) return invalid("is not described by an object");
  if (info.size() != 3) return invalid("must have dtype, shape and data_offsets, and no more");
  TensorView tensor;
  tensor.name = name;

  const Json* dtype = JsonFind(info, "dtype");
  if (dtype == nullptr || !dtype->is_string()) return invalid("dtype is not a string");
  tensor.stored_type = dtype->get_ref<const std::string&>();
  const StoredType* type = FindStoredType(tensor.stored_type);
  if (type == nullptr) return invalid(StrCat("unknown dtype \"", Shown(tensor.stored_type), "\""));
  tensor.dtype = type->dtype;

  const Json* shape = JsonFind(info, "shape");
  if (shape == nullptr || !shape->is_array()) return invalid("shape is not an array");
  if (shape->size() > kMaxRank) {
    return invalid(StrCat("has ", shape->size(), " dimensions, at most ", kMaxRank, " are read"));
  }
  for (const Json& extent : *shape) {
    const std::optional<uint64_t> size = AsSize(extent);
    if (!size.has_value()) return invalid("shape holds something that is not a size");
    tensor.shape.push_back(static_cast<int64_t>(*size));
  }

  const Json* offsets = JsonFind(info, "data_offsets");
  if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2) {
    return invalid("data_offsets is not a pair");
  }
  const std::optional<uint64_t> begin = AsSize((*offsets)[0]);
  const std::optional<uint64_t> end = AsSize((*offsets)[1]);
  if (!begin.has_value() || !end.has_value()) return invalid("data_offsets are not sizes");
  if (*begin > *end) return invalid("data_offsets are not in order");
  if (*end > buffer.size()) {
    return invalid(StrCat("ends at byte ", *end, " of the data, but the file holds only ",
                          buffer.size(), " (truncated?)"));
  }
  const std::optional<uint64_t> bytes = TensorBytes(*type, tensor.shape);
  if (!bytes.has_value()) return invalid("its shape is not a whole number of bytes that fits");
  if (*bytes != *end - *begin) {
    return invalid(StrCat("its shape takes ", *bytes, " bytes, its data_offsets ", *end - *begin));
  }
  tensor.data = buffer.subspan(*begin, *bytes);
  *span = {.begin = *begin, .end = *end};
  return tensor;
}

absl::Status CheckMetadata(const Json& metadata, std::string_view what) {
  if (!metadata.is_object()) {
    return absl::InvalidArgumentError(StrCat(what, ": __metadata__ is not an object"));
  }
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) {
      return absl::InvalidArgumentError(
          StrCat(what, ": __metadata__ \"", Shown(key), "\" is not a string"));
    }
  }
  return absl::OkStatus();
}

// The tensors must tile the data from 0 to its end.
absl::Status CheckCoverage(std::vector<Span> spans, uint64_t data_bytes, std::string_view what) {
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t position = 0;
  for (const Span& span : spans) {
    if (span.begin != position) {
      return absl::InvalidArgumentError(
          StrCat(what, ": tensor \"", Shown(*span.name), "\" begins at byte ", span.begin,
                 " of the data, expected ", position,
                 span.begin < position ? " (it overlaps another)" : " (a hole before it)"));
    }
    position = span.end;
  }
  if (position != data_bytes) {
    return absl::InvalidArgumentError(StrCat(what, ": the tensors end at byte ", position,
                                             " of the data, the file holds ", data_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TensorMap> ParseSafetensors(std::span<const std::byte> file, std::string_view what) {
  if (file.size() < kLengthBytes) {
    return absl::InvalidArgumentError(
        StrCat(what, ": ", file.size(), " bytes are too few for a safetensors file"));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(StrCat(what, ": not a safetensors file (a header of ",
                                             header_bytes, " bytes, at most ", kMaxHeaderBytes,
                                             " are allowed)"));
  }
  if (header_bytes > file.size() - kLengthBytes) {
    return absl::InvalidArgumentError(StrCat(what, ": truncated: a header of ", header_bytes,
                                             " bytes in a file of ", file.size()));
  }
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + kLengthBytes,
                                header_bytes);
  if (!header.starts_with('{')) {
    return absl::InvalidArgumentError(StrCat(what, ": the header does not start with '{'"));
  }
  MOESAIC_ASSIGN_OR_RETURN(const Json json,
                           ParseJson(header, StrCat(what, " (header)"),
                                     {.max_bytes = kMaxHeaderBytes,
                                      .max_depth = 3,
                                      .max_values = kMaxTensors * (8 + kMaxRank)}));
  if (json.size() > kMaxTensors) {
    return absl::InvalidArgumentError(
        StrCat(what, ": ", json.size(), " tensors, at most ", kMaxTensors, " are read"));
  }
  const std::span<const std::byte> buffer = file.subspan(kLengthBytes + header_bytes);
  TensorMap tensors;
  std::vector<Span> spans;
  for (const auto& [name, info] : json.items()) {
    if (name == "__metadata__") {
      MOESAIC_RETURN_IF_ERROR(CheckMetadata(info, what));
      continue;
    }
    Span span;
    MOESAIC_ASSIGN_OR_RETURN(TensorView tensor, ParseTensor(name, info, buffer, what, &span));
    const auto entry = tensors.emplace(name, std::move(tensor)).first;
    span.name = &entry->first;
    spans.push_back(span);
  }
  MOESAIC_RETURN_IF_ERROR(CheckCoverage(std::move(spans), buffer.size(), what));
  return tensors;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::filesystem::path& path) {
  const std::string name = path.string();
  // O_NONBLOCK: opening a pipe of that name must not wait for a writer.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    const std::string text = StrCat(name, ": ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(text) : absl::InvalidArgumentError(text);
  }
  struct stat info = {};
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(descriptor);
    return absl::InvalidArgumentError(StrCat(name, ": not a regular file"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (data == MAP_FAILED) {
      const std::string text = StrCat(name, ": mapping ", size, " bytes: ", std::strerror(errno));
      close(descriptor);
      return absl::ResourceExhaustedError(text);
    }
  }
  const int64_t modified_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
  std::unique_ptr<SafetensorsFile> file(
      new SafetensorsFile(descriptor, {static_cast<const std::byte*>(data), size}, modified_ns));
  MOESAIC_ASSIGN_OR_RETURN(file->tensors_, ParseSafetensors(file->mapping_, name));
  return file;
}

SafetensorsFile::SafetensorsFile(int descriptor,
                                 std::span<const std::byte> mapping,
                                 int64_t modified_ns)
    : descriptor_(descriptor), mapping_(mapping), modified_ns_(modified_ns) {}

SafetensorsFile::Info SafetensorsFile::info() const {
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, mapping_.data(), kLengthBytes);
  return {.bytes = mapping_.size(),
          .modified_ns = modified_ns_,
          .header = mapping_.first(kLengthBytes + header_bytes)};
}

SafetensorsFile::~SafetensorsFile() {
  if (!mapping_.empty()) munmap(const_cast<std::byte*>(mapping_.data()), mapping_.size());
  close(descriptor_);
}

void SafetensorsFile::Release(std::span<const std::byte> data) const {
  if (data.empty()) return;
  // Outwards to whole fault-around windows: rounding inwards would keep the edges of every tensor,
  // which for a model of many small experts adds up. Pages of a neighbour that is still needed
  // come back with the next read.
  const uintptr_t base = reinterpret_cast<uintptr_t>(mapping_.data());
  uintptr_t begin = reinterpret_cast<uintptr_t>(data.data());
  uintptr_t end = begin + data.size();
  begin = std::max(base, begin / kFaultAroundBytes * kFaultAroundBytes);
  end = std::min(base + mapping_.size(), RoundUp(end, kFaultAroundBytes));
  // Both calls are advice: when the system declines, the pages merely stay longer.
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  posix_fadvise(descriptor_, static_cast<off_t>(begin - base), static_cast<off_t>(end - begin),
                POSIX_FADV_DONTNEED);
}

}  // namespace moesaic
