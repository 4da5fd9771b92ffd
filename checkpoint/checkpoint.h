#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"

namespace moesaic {

// The weights of a Hugging Face model folder: model.safetensors, or the shards that
// model.safetensors.index.json lists. Immutable: any thread. Views live as long as the checkpoint.
//
//   ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(folder));
//   ASSIGN_OR_RETURN(TensorView gate, checkpoint->FindWeight(name, shape));
//   ... pack gate.data ...
//   checkpoint->Release(gate);
//
// Release every tensor once it is consumed: mapped pages that were read count as this process's
// memory until then.
class Checkpoint {
 public:
  // NotFound when the folder holds no weights; InvalidArgument for a file that is malformed, lies
  // about its content, or (by `..`, an absolute path or a link) is outside the folder.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::filesystem::path& folder);

  bool Contains(std::string_view name) const;
  // Every tensor, in order.
  std::vector<std::string_view> names() const;
  // NotFound naming the tensor and where it was looked for.
  absl::StatusOr<TensorView> Find(std::string_view name) const;
  // Find, and InvalidArgument naming the file unless it is float32, float16 or bfloat16 of exactly
  // `shape`.
  absl::StatusOr<TensorView> FindWeight(std::string_view name,
                                        std::span<const int64_t> shape) const;

  struct FileInfo {
    std::string name;  // in the folder
    SafetensorsFile::Info info;
  };
  // Ascending by name.
  std::vector<FileInfo> Files() const;

  // Gives the memory under a consumed tensor back; `tensor.data` may be any part of a tensor.
  void Release(const TensorView& tensor) const;

 private:
  struct File {
    std::filesystem::path path;  // as the folder names it: a cache's real files have no names
    std::unique_ptr<SafetensorsFile> content;
  };
  struct Entry {
    const File* file = nullptr;
    const TensorView* tensor = nullptr;
  };

  Checkpoint() = default;
  absl::Status OpenSingle(const std::filesystem::path& folder, const std::filesystem::path& file);
  absl::Status OpenSharded(const std::filesystem::path& folder, const std::filesystem::path& index);

  const File* AddFile(std::filesystem::path path, std::unique_ptr<SafetensorsFile> content);

  std::filesystem::path source_;  // the file that says which tensors there are
  std::vector<std::unique_ptr<const File>> files_;
  std::map<std::string, Entry, std::less<>> tensors_;
};

// The real path of `name` in a model folder, or InvalidArgument when `name` is absolute, climbs
// with `..`, or is a link to a place outside the folder. The one place outside that is allowed is
// the blob store of a Hugging Face cache: FOLDER/snapshots/REVISION/name -> FOLDER/blobs/HASH.
// NotFound when there is no such file.
absl::StatusOr<std::filesystem::path> ConfinedPath(const std::filesystem::path& folder,
                                                   std::string_view name);

}  // namespace moesaic
