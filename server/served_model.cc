#include "server/served_model.h"

#include <fstream>
#include <limits>
#include <system_error>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

}  // namespace

absl::StatusOr<SamplingParams> LoadGenerationDefaults(const std::filesystem::path& folder,
                                                      const SamplingLimits& limits) {
  constexpr char kFile[] = "generation_config.json";
  SamplingParams params;
  const absl::StatusOr<Json> json = ParseJsonFile(folder / kFile);
  if (absl::IsNotFound(json.status())) return params;
  MOESAIC_RETURN_IF_ERROR(json.status());
  if (!json->is_object()) {
    return absl::InvalidArgumentError(StrCat(kFile, ": expected an object"));
  }
  for (const auto& [field, value] :
       {std::pair{"temperature", &params.temperature}, std::pair{"top_p", &params.top_p},
        std::pair{"min_p", &params.min_p},
        std::pair{"repetition_penalty", &params.repetition_penalty}}) {
    MOESAIC_ASSIGN_OR_RETURN(const double number, JsonNumber(*json, field, kFile, *value));
    *value = static_cast<float>(number);
  }
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  MOESAIC_ASSIGN_OR_RETURN(const int64_t top_k, JsonInt(*json, "top_k", kFile, -1, kMax, 0));
  params.top_k = top_k < 0 ? 0 : static_cast<int32_t>(top_k);
  MOESAIC_ASSIGN_OR_RETURN(const int64_t max_tokens, JsonInt(*json, "max_new_tokens", kFile, 1,
                                                             kMax, int64_t{params.max_tokens}));
  params.max_tokens = static_cast<int32_t>(max_tokens);
  if (const absl::Status status = ValidateSamplingParams(params, limits); !status.ok()) {
    return absl::InvalidArgumentError(StrCat(kFile, ": ", std::string(status.message())));
  }
  return params;
}

absl::StatusOr<std::string> LoadChatTemplate(const std::filesystem::path& folder) {
  const std::filesystem::path jinja = folder / "chat_template.jinja";
  std::error_code error;
  if (std::filesystem::exists(jinja, error)) {
    const uint64_t bytes = std::filesystem::file_size(jinja, error);
    if (error || bytes > kMaxTemplateBytes) {
      return absl::InvalidArgumentError(
          StrCat("chat_template.jinja: unreadable or larger than ", kMaxTemplateBytes, " bytes"));
    }
    std::string text(bytes, '\0');
    std::ifstream file(jinja, std::ios::binary);
    if (!file.read(text.data(), static_cast<std::streamsize>(bytes))) {
      return absl::InvalidArgumentError("chat_template.jinja: cannot be read");
    }
    if (const auto offset = FindInvalidUtf8(text)) {
      return absl::InvalidArgumentError(
          StrCat("chat_template.jinja: invalid UTF-8 at byte ", *offset));
    }
    return text;
  }
  const absl::StatusOr<Json> json = ParseJsonFile(folder / "tokenizer_config.json");
  if (absl::IsNotFound(json.status())) return std::string();
  MOESAIC_RETURN_IF_ERROR(json.status());
  if (!json->is_object()) {
    return absl::InvalidArgumentError("tokenizer_config.json: expected an object");
  }
  const Json* chat_template = JsonFind(*json, "chat_template");
  if (chat_template == nullptr) return std::string();
  if (chat_template->is_string()) return chat_template->get<std::string>();
  // Or a list of named ones, of which "default" is the one.
  if (chat_template->is_array()) {
    for (const Json& named : *chat_template) {
      if (!named.is_object()) continue;
      const Json* name = JsonFind(named, "name");
      const Json* text = JsonFind(named, "template");
      if (name != nullptr && *name == "default" && text != nullptr && text->is_string()) {
        return text->get<std::string>();
      }
    }
  }
  return std::string();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::filesystem::path& folder) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(folder);
  if (absl::IsNotFound(tokenizer.status())) return nullptr;
  return tokenizer;
}

std::string ServedModelName(const std::string& configured, const std::filesystem::path& folder) {
  if (!configured.empty()) return configured;
  std::error_code error;
  const std::filesystem::path canonical = std::filesystem::canonical(folder, error);
  return (error ? folder : canonical).filename().string();
}

}  // namespace moesaic
