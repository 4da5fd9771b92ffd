#include "server/sampling_json.h"

#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

constexpr size_t kMaxListEntries = 1024;  // before the request's own limits are checked

absl::Status Wrong(std::string_view what, const std::string& field, std::string_view expected) {
  return absl::InvalidArgumentError(StrCat(what, ": \"", field, "\": expected ", expected));
}

std::optional<double> AsNumber(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (!value.is_string()) return std::nullopt;
  const auto& text = value.get_ref<const std::string&>();
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (text.empty() || end != text.c_str() + text.size()) return std::nullopt;
  return number;
}

// Integers keep all their bits: seeds do not fit a double.
std::optional<int64_t> AsInteger(const Json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  const std::optional<double> number = AsNumber(value);
  if (!number || std::nearbyint(*number) != *number || std::fabs(*number) > 9.0e15) {
    return std::nullopt;
  }
  return static_cast<int64_t>(*number);
}

std::optional<int32_t> AsInt32(const Json& value) {
  const std::optional<int64_t> number = AsInteger(value);
  if (!number || *number < std::numeric_limits<int32_t>::min() ||
      *number > std::numeric_limits<int32_t>::max()) {
    return std::nullopt;
  }
  return static_cast<int32_t>(*number);
}

std::optional<bool> AsBool(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (!value.is_string()) return std::nullopt;
  const auto& text = value.get_ref<const std::string&>();
  if (text == "true" || text == "True" || text == "1") return true;
  if (text == "false" || text == "False" || text == "0") return false;
  return std::nullopt;
}

using Setter = std::function<const char*(const Json&, GenerationRequest&)>;  // what was expected

Setter Int(int32_t SamplingParams::*field) {
  return [field](const Json& value, GenerationRequest& request) -> const char* {
    const auto number = AsInt32(value);
    if (!number) return "a 32-bit integer";
    request.params.*field = *number;
    return nullptr;
  };
}

Setter OptionalInt(std::optional<int32_t> SamplingParams::*field) {
  return [field](const Json& value, GenerationRequest& request) -> const char* {
    const auto number = AsInt32(value);
    if (!number) return "a 32-bit integer";
    request.params.*field = *number;
    return nullptr;
  };
}

Setter Float(float SamplingParams::*field) {
  return [field](const Json& value, GenerationRequest& request) -> const char* {
    const auto number = AsNumber(value);
    if (!number || !(std::fabs(*number) <= std::numeric_limits<float>::max())) {
      return "a finite number";
    }
    request.params.*field = static_cast<float>(*number);
    return nullptr;
  };
}

Setter Bool(bool SamplingParams::*field) {
  return [field](const Json& value, GenerationRequest& request) -> const char* {
    const auto flag = AsBool(value);
    if (!flag) return "true or false";
    request.params.*field = *flag;
    return nullptr;
  };
}

const char* SetMaxTokens(const Json& value, GenerationRequest& request) {
  request.max_tokens_given = true;
  return Int(&SamplingParams::max_tokens)(value, request);
}

const char* SetTopK(const Json& value, GenerationRequest& request) {
  const char* error = Int(&SamplingParams::top_k)(value, request);
  if (request.params.top_k == -1) request.params.top_k = 0;
  return error;
}

const char* SetSeed(const Json& value, GenerationRequest& request) {
  if (value.is_number_unsigned()) {
    request.params.seed = value.get<uint64_t>();
    return nullptr;
  }
  const auto number = AsInteger(value);
  if (!number || *number < 0) return "an integer from 0 to 2^64 - 1";
  request.params.seed = static_cast<uint64_t>(*number);
  return nullptr;
}

const char* SetStop(const Json& value, GenerationRequest& request) {
  static constexpr char kExpected[] = "a string or a list of at most 1024 strings";
  request.params.stop.clear();
  if (value.is_string()) {
    request.params.stop.push_back(value.get<std::string>());
    return nullptr;
  }
  if (!value.is_array() || value.size() > kMaxListEntries) return kExpected;
  for (const Json& stop : value) {
    if (!stop.is_string()) return kExpected;
    request.params.stop.push_back(stop.get<std::string>());
  }
  return nullptr;
}

const char* SetStopTokenIds(const Json& value, GenerationRequest& request) {
  static constexpr char kExpected[] = "a list of at most 1024 token ids";
  request.params.stop_token_ids.clear();
  if (!value.is_array() || value.size() > kMaxListEntries) return kExpected;
  for (const Json& id : value) {
    const auto number = AsInt32(id);
    if (!number) return kExpected;
    request.params.stop_token_ids.push_back(*number);
  }
  return nullptr;
}

Setter EncodeFlag(bool EncodeOptions::*field) {
  return [field](const Json& value, GenerationRequest& request) -> const char* {
    const auto flag = AsBool(value);
    if (!flag) return "true or false";
    request.encode.*field = *flag;
    return nullptr;
  };
}

const char* SetDetokenize(const Json& value, GenerationRequest& request) {
  const auto flag = AsBool(value);
  if (!flag) return "true or false";
  request.detokenize = *flag;
  request.detokenize_required = *flag;
  return nullptr;
}

const std::map<std::string, Setter>& Setters() {
  static const auto* const setters = new std::map<std::string, Setter>{
      {"n", Int(&SamplingParams::n)},
      {"temperature", Float(&SamplingParams::temperature)},
      {"top_k", SetTopK},
      {"top_p", Float(&SamplingParams::top_p)},
      {"min_p", Float(&SamplingParams::min_p)},
      {"repetition_penalty", Float(&SamplingParams::repetition_penalty)},
      {"presence_penalty", Float(&SamplingParams::presence_penalty)},
      {"frequency_penalty", Float(&SamplingParams::frequency_penalty)},
      {"seed", SetSeed},
      {"stop", SetStop},
      {"stop_token_ids", SetStopTokenIds},
      {"ignore_eos", Bool(&SamplingParams::ignore_eos)},
      {"include_stop_str_in_output", Bool(&SamplingParams::include_stop_str_in_output)},
      {"skip_special_tokens", Bool(&SamplingParams::skip_special_tokens)},
      {"max_tokens", SetMaxTokens},
      {"min_tokens", Int(&SamplingParams::min_tokens)},
      {"logprobs", OptionalInt(&SamplingParams::logprobs)},
      {"prompt_logprobs", OptionalInt(&SamplingParams::prompt_logprobs)},
      {"detokenize", SetDetokenize},
      {"add_special_tokens", EncodeFlag(&EncodeOptions::add_special_tokens)},
      {"parse_special_tokens", EncodeFlag(&EncodeOptions::parse_special_tokens)},
  };
  return *setters;
}

}  // namespace

absl::Status ApplySamplingJson(const Json& object,
                               std::string_view what,
                               bool text_numbers,
                               GenerationRequest& request) {
  if (!object.is_object()) {
    return absl::InvalidArgumentError(StrCat(what, ": expected a JSON object"));
  }
  for (const auto& [name, value] : object.items()) {
    const auto setter = Setters().find(name);
    if (setter == Setters().end()) {
      return absl::InvalidArgumentError(
          StrCat(what, ": unknown sampling parameter \"", name.substr(0, 64), "\""));
    }
    if (value.is_null()) continue;  // the default, as in vLLM
    if (!text_numbers && value.is_string() && name != "stop") {
      return Wrong(what, name, "a number or a boolean, got a string");
    }
    if (const char* expected = setter->second(value, request)) return Wrong(what, name, expected);
  }
  return absl::OkStatus();
}

absl::Status ParseSamplingJson(std::string_view text,
                               std::string_view what,
                               GenerationRequest& request) {
  constexpr JsonLimits kLimits{.max_bytes = size_t{256} << 10,
                               .max_depth = 8,
                               .max_values = 4096,
                               .reject_duplicate_keys = true};
  MOESAIC_ASSIGN_OR_RETURN(const Json object, ParseJson(text, what, kLimits));
  return ApplySamplingJson(object, what, /*text_numbers=*/true, request);
}

}  // namespace moesaic
