#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"

namespace moesaic {

// JSON from files and clients, parsed without exceptions and within bounds. The rest of the project
// reads JSON through this header only.
using Json = nlohmann::json;

struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;
  int max_depth = 64;
  size_t max_values = size_t{16} << 20;  // scalars, arrays and objects together
  bool reject_duplicate_keys = true;
};

// `what` names the document in errors ("config.json", "sampling_parameters"). InvalidArgument with
// the byte offset for text that is not UTF-8 JSON or is over a limit.
absl::StatusOr<Json> ParseJson(std::string_view text,
                               std::string_view what,
                               const JsonLimits& limits = {});
// NotFound when there is no such file.
absl::StatusOr<Json> ParseJsonFile(const std::filesystem::path& path,
                                   const JsonLimits& limits = {});

// Checked reads of one object's fields. `what` as above. A missing field and JSON null give
// `fallback`, or InvalidArgument when there is none; a wrong type or a number out of range is
// InvalidArgument naming field, value and what was expected.
absl::StatusOr<int64_t> JsonInt(const Json& object,
                                const char* field,
                                std::string_view what,
                                int64_t min,
                                int64_t max,
                                std::optional<int64_t> fallback = std::nullopt);
absl::StatusOr<double> JsonNumber(const Json& object,
                                  const char* field,
                                  std::string_view what,
                                  std::optional<double> fallback = std::nullopt);
absl::StatusOr<bool> JsonBool(const Json& object,
                              const char* field,
                              std::string_view what,
                              std::optional<bool> fallback = std::nullopt);
absl::StatusOr<std::string> JsonString(const Json& object,
                                       const char* field,
                                       std::string_view what,
                                       std::optional<std::string> fallback = std::nullopt);
// The member, or null when it is missing or JSON null.
const Json* JsonFind(const Json& object, const char* field);

}  // namespace moesaic
