#include "tokenizer/tokenizer.h"

#include <fstream>
#include <iterator>
#include <system_error>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"
#include "tokenizer/sentencepiece_tokenizer.h"
#include "tokenizer/tokenizer_json.h"

namespace moesaic {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (error) {
    return absl::InvalidArgumentError(StrCat(path.string(), ": ", error.message()));
  }
  if (bytes > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        StrCat(path.string(), " has ", bytes, " bytes; at most ", kMaxFileBytes, " are read"));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) return absl::InvalidArgumentError(StrCat(path.string(), " cannot be read"));
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& folder) {
  std::error_code ignored;
  const std::filesystem::path json = folder / "tokenizer.json";
  if (std::filesystem::exists(json, ignored)) {
    MOESAIC_ASSIGN_OR_RETURN(const std::string text, ReadFile(json));
    return ParseTokenizerJson(text);
  }
  const std::filesystem::path model = folder / "tokenizer.model";
  if (std::filesystem::exists(model, ignored)) {
    MOESAIC_ASSIGN_OR_RETURN(const std::string text, ReadFile(model));
    absl::StatusOr<Json> config = ParseJsonFile(folder / "tokenizer_config.json");
    if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
    return MakeSentencePieceTokenizer(text, config.ok() ? *config : Json());
  }
  return absl::NotFoundError(
      StrCat(folder.string(), " has neither tokenizer.json nor tokenizer.model"));
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  const std::unique_ptr<DecodeStream> stream = NewDecodeStream(options);
  std::string text;
  for (const int32_t id : ids) stream->Push(id, &text);
  stream->Flush(&text);
  return text;
}

}  // namespace moesaic
