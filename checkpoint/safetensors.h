#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/dtype.h"

namespace moesaic {

// One tensor of a checkpoint: what its file says of it, and its bytes inside the mapped file.
struct TensorView {
  std::string name;
  std::string stored_type;          // as the file spells it: "BF16", "I64"
  std::optional<DType> dtype;       // none for types that weights are not read from
  std::vector<int64_t> shape;       // empty for a scalar; a dimension may be 0
  std::span<const std::byte> data;  // row-major, little-endian; aligned to 1 byte only
};

using TensorMap = std::map<std::string, TensorView, std::less<>>;

// Checks the whole header of a safetensors file against its real size and returns its tensors.
// `what` names the file in errors. InvalidArgument for anything that is not exactly a safetensors
// file: the offsets must cover the bytes after the header once, without holes.
absl::StatusOr<TensorMap> ParseSafetensors(std::span<const std::byte> file, std::string_view what);

// A safetensors file, mapped read-only. Immutable: any thread. Its views live as long as it does;
// the file must not be truncated meanwhile.
class SafetensorsFile {
 public:
  // NotFound when there is no such file; InvalidArgument when its content is not valid.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const TensorMap& tensors() const { return tensors_; }

  // What tells this file from another of the same name without reading its data.
  struct Info {
    uint64_t bytes = 0;
    int64_t modified_ns = 0;
    std::span<const std::byte> header = {};  // lives as long as the file
  };
  Info info() const;

  // Gives the pages under `data`, a part of a view of this file, back to the system: from this
  // process and, where nobody else uses them, from the page cache. Reading them again is still
  // valid and reads the disk.
  void Release(std::span<const std::byte> data) const;

 private:
  SafetensorsFile(int descriptor, std::span<const std::byte> mapping, int64_t modified_ns);

  const int descriptor_;
  const std::span<const std::byte> mapping_;
  const int64_t modified_ns_;
  TensorMap tensors_;
};

}  // namespace moesaic
