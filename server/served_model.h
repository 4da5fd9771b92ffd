#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "base/dtype.h"
#include "core/sampling_params.h"
#include "engine/engine.h"
#include "tokenizer/tokenizer.h"

namespace moesaic {

// The one model this process serves, and what the doors need to know of it. Immutable once made.
struct ServedModel {
  std::string name;
  ModelConfig config;
  DType dtype = DType::kFloat32;
  int64_t weight_bytes = 0;
  SamplingParams defaults;
  SamplingLimits limits;
  std::string chat_template;             // empty: the folder has none
  std::unique_ptr<Tokenizer> tokenizer;  // null: token ids only
  std::unique_ptr<Engine> engine;
};

// The folder's sampling defaults. InvalidArgument naming the field when one is out of range.
absl::StatusOr<SamplingParams> LoadGenerationDefaults(const std::filesystem::path& folder,
                                                      const SamplingLimits& limits);
// The folder's chat template (chat_template.jinja, else tokenizer_config.json's); empty when it has
// none.
absl::StatusOr<std::string> LoadChatTemplate(const std::filesystem::path& folder);
// Null when the folder has no tokenizer files.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::filesystem::path& folder);
// --served-model-name, else the folder's name.
std::string ServedModelName(const std::string& configured, const std::filesystem::path& folder);

}  // namespace moesaic
