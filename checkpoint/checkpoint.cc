#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr size_t kMaxShards = 4096;

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += StrCat(i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

// `path` is `folder` or below it; both are canonical.
bool IsInside(const fs::path& folder, const fs::path& path) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

// A Hugging Face cache keeps every file once, as REPOSITORY/blobs/HASH, and links to it from
// REPOSITORY/snapshots/REVISION.
bool IsCacheBlob(const fs::path& folder, const fs::path& path) {
  const fs::path snapshots = folder.parent_path();
  return snapshots.filename() == "snapshots" &&
         path.parent_path() == snapshots.parent_path() / "blobs";
}

// metadata.total_size, where an index has one, must be what its tensors really take.
absl::Status CheckTotalSize(const Json& index, uint64_t total_bytes) {
  const Json* metadata = JsonFind(index, "metadata");
  if (metadata == nullptr) return absl::OkStatus();
  const Json* total_size = JsonFind(*metadata, "total_size");
  if (total_size == nullptr) return absl::OkStatus();
  // Some writers store it as 1.234e9.
  if (!total_size->is_number() || total_size->get<double>() != static_cast<double>(total_bytes)) {
    return absl::InvalidArgumentError(
        StrCat(kIndexFile, ": metadata.total_size is ",
               total_size->is_number() ? total_size->dump() : "not a number", ", the tensors take ",
               total_bytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<fs::path> ConfinedPath(const fs::path& folder, std::string_view name) {
  const fs::path relative(name);
  const bool climbs = std::find(relative.begin(), relative.end(), "..") != relative.end();
  if (relative.empty() || relative.is_absolute() || climbs ||
      name.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError(
        StrCat("\"", name.substr(0, 200), "\" is not a path inside the model folder"));
  }
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  if (error) return absl::NotFoundError(StrCat(folder.string(), ": ", error.message()));
  const fs::path path = fs::canonical(root / relative, error);
  if (error) return absl::NotFoundError(StrCat((folder / relative).string(), ": no such file"));
  if (!IsInside(root, path) && !IsCacheBlob(root, path)) {
    return absl::InvalidArgumentError(StrCat((folder / relative).string(), " links to ",
                                             path.string(), ", outside the model folder"));
  }
  return path;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const fs::path& folder) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint());
  // A whole model.safetensors comes before an index, as in transformers.
  const absl::StatusOr<fs::path> single = ConfinedPath(folder, kSingleFile);
  if (single.ok()) {
    MOESAIC_RETURN_IF_ERROR(checkpoint->OpenSingle(folder, *single));
    return checkpoint;
  }
  if (!absl::IsNotFound(single.status())) return single.status();
  const absl::StatusOr<fs::path> index = ConfinedPath(folder, kIndexFile);
  if (index.ok()) {
    MOESAIC_RETURN_IF_ERROR(checkpoint->OpenSharded(folder, *index));
    return checkpoint;
  }
  if (!absl::IsNotFound(index.status())) return index.status();
  return absl::NotFoundError(
      StrCat(folder.string(), ": holds neither ", kSingleFile, " nor ", kIndexFile));
}

const Checkpoint::File* Checkpoint::AddFile(fs::path path,
                                            std::unique_ptr<SafetensorsFile> content) {
  return files_.emplace_back(new File{std::move(path), std::move(content)}).get();
}

absl::Status Checkpoint::OpenSingle(const fs::path& folder, const fs::path& file) {
  source_ = folder / kSingleFile;
  MOESAIC_ASSIGN_OR_RETURN(auto opened, SafetensorsFile::Open(file));
  const File* added = AddFile(source_, std::move(opened));
  for (const auto& [name, tensor] : added->content->tensors()) {
    tensors_.emplace(name, Entry{.file = added, .tensor = &tensor});
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::OpenSharded(const fs::path& folder, const fs::path& index) {
  source_ = folder / kIndexFile;
  MOESAIC_ASSIGN_OR_RETURN(const Json json, ParseJsonFile(index));
  const Json* weight_map = JsonFind(json, "weight_map");
  if (weight_map == nullptr || !weight_map->is_object() || weight_map->empty()) {
    return absl::InvalidArgumentError(
        StrCat(kIndexFile, ": weight_map is not an object that names tensors"));
  }
  std::map<std::string, const File*> shards;
  for (const auto& [name, value] : weight_map->items()) {
    if (!value.is_string()) {
      return absl::InvalidArgumentError(
          StrCat(kIndexFile, ": weight_map gives no file name for \"", name, "\""));
    }
    shards.emplace(value.get_ref<const std::string&>(), nullptr);
  }
  if (shards.size() > kMaxShards) {
    return absl::InvalidArgumentError(
        StrCat(kIndexFile, ": ", shards.size(), " shards, at most ", kMaxShards, " are read"));
  }
  std::map<std::string_view, const std::string*> holders;  // tensor -> shard
  for (auto& [shard_name, shard] : shards) {
    const absl::StatusOr<fs::path> path = ConfinedPath(folder, shard_name);
    if (!path.ok()) {
      return absl::Status(path.status().code(),
                          StrCat(kIndexFile, ": ", std::string(path.status().message())));
    }
    MOESAIC_ASSIGN_OR_RETURN(auto opened, SafetensorsFile::Open(*path));
    shard = AddFile(folder / shard_name, std::move(opened));
    for (const auto& [name, tensor] : shard->content->tensors()) {
      const auto [holder, first] = holders.emplace(name, &shard_name);
      if (!first) {
        return absl::InvalidArgumentError(
            StrCat("tensor \"", name, "\" is in both ", *holder->second, " and ", shard_name));
      }
    }
  }
  uint64_t total_bytes = 0;
  for (const auto& [name, value] : weight_map->items()) {
    const std::string& shard_name = value.get_ref<const std::string&>();
    const File* shard = shards.at(shard_name);
    const TensorMap& held = shard->content->tensors();
    const auto found = held.find(name);
    if (found == held.end()) {
      return absl::InvalidArgumentError(
          StrCat(kIndexFile, ": says that \"", name, "\" is in ", shard_name, ", but it is not"));
    }
    tensors_.emplace(name, Entry{.file = shard, .tensor = &found->second});
    total_bytes += found->second.data.size();
  }
  return CheckTotalSize(json, total_bytes);
}

bool Checkpoint::Contains(std::string_view name) const {
  return tensors_.find(name) != tensors_.end();
}

std::vector<std::string_view> Checkpoint::names() const {
  std::vector<std::string_view> names;
  names.reserve(tensors_.size());
  for (const auto& [name, entry] : tensors_) names.push_back(name);
  return names;
}

absl::StatusOr<TensorView> Checkpoint::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(StrCat(source_.string(), ": there is no tensor \"", name, "\""));
  }
  return *found->second.tensor;
}

absl::StatusOr<TensorView> Checkpoint::FindWeight(std::string_view name,
                                                  std::span<const int64_t> shape) const {
  MOESAIC_ASSIGN_OR_RETURN(TensorView tensor, Find(name));
  const std::string file = tensors_.find(name)->second.file->path.string();
  if (!tensor.dtype.has_value()) {
    return absl::InvalidArgumentError(StrCat(file, ": tensor \"", name, "\" is stored as ",
                                             tensor.stored_type, ", expected F32, F16 or BF16"));
  }
  if (!std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end())) {
    return absl::InvalidArgumentError(StrCat(file, ": tensor \"", name, "\" has shape ",
                                             ShapeText(tensor.shape), ", config.json asks for ",
                                             ShapeText(shape)));
  }
  return tensor;
}

std::vector<Checkpoint::FileInfo> Checkpoint::Files() const {
  std::vector<FileInfo> infos;
  for (const auto& file : files_)
    infos.push_back(
        {file->path.lexically_relative(source_.parent_path()).string(), file->content->info()});
  return infos;
}

void Checkpoint::Release(const TensorView& tensor) const {
  const auto found = tensors_.find(tensor.name);
  if (found != tensors_.end()) found->second.file->content->Release(tensor.data);
}

}  // namespace moesaic
