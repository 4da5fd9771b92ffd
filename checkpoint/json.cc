#include "checkpoint/json.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

// Builds the document while counting what it holds, so that a small text cannot grow into a large
// or deep tree before it is refused.
class BoundedBuilder final : public nlohmann::json_sax<Json> {
 public:
  explicit BoundedBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return Fail("binary value"); }

  bool start_object(size_t) override { return Open(Json::object()); }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    auto& object = open_.back()->get_ref<Json::object_t&>();
    const auto [member, inserted] = object.try_emplace(name, nullptr);
    if (!inserted && limits_.reject_duplicate_keys) {
      return Fail(StrCat("duplicate key \"", name, "\""));
    }
    member_ = &member->second;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    // The library's text repeats the last token, which may be as long as the document.
    const std::string text = error.what();
    return Fail(
        StrCat(text.substr(0, 200), text.size() > 200 ? "..." : "", " (at byte ", position, ")"));
  }

  Json TakeRoot() { return std::move(root_); }
  const std::string& error() const { return error_; }

 private:
  bool Fail(std::string error) {
    if (error_.empty()) error_ = std::move(error);
    return false;
  }

  Json* Place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<Json::array_t&>();
      return &array.emplace_back(std::move(value));
    }
    *member_ = std::move(value);
    return member_;
  }

  bool Add(Json value) {
    if (++values_ > limits_.max_values) {
      return Fail(StrCat("more than ", limits_.max_values, " values"));
    }
    Place(std::move(value));
    return true;
  }

  bool Open(Json value) {
    if (++values_ > limits_.max_values) {
      return Fail(StrCat("more than ", limits_.max_values, " values"));
    }
    if (open_.size() >= static_cast<size_t>(limits_.max_depth)) {
      return Fail(StrCat("nested deeper than ", limits_.max_depth));
    }
    // A parent only grows again once this child is closed, so the pointer stays valid.
    open_.push_back(Place(std::move(value)));
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  Json root_;
  std::vector<Json*> open_;
  Json* member_ = nullptr;
  size_t values_ = 0;
  std::string error_;
};

// A value as it appears in an error message: short, whatever the document holds.
std::string Shown(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 40 ? text : StrCat(text.substr(0, 40), "...");
}

absl::Status WrongType(const Json& value,
                       const char* field,
                       std::string_view what,
                       std::string_view expected) {
  return absl::InvalidArgumentError(
      StrCat(what, ": \"", field, "\" is ", Shown(value), ", expected ", expected));
}

absl::Status Missing(const char* field, std::string_view what, std::string_view expected) {
  return absl::InvalidArgumentError(
      StrCat(what, ": \"", field, "\" is missing, expected ", expected));
}

}  // namespace

absl::StatusOr<Json> ParseJson(std::string_view text,
                               std::string_view what,
                               const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return absl::InvalidArgumentError(
        StrCat(what, ": ", text.size(), " bytes, at most ", limits.max_bytes, " are read"));
  }
  BoundedBuilder builder(limits);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return absl::InvalidArgumentError(StrCat(what, ": ", builder.error()));
  }
  return builder.TakeRoot();
}

absl::StatusOr<Json> ParseJsonFile(const std::filesystem::path& path, const JsonLimits& limits) {
  const std::string name = path.filename().string();
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return absl::NotFoundError(StrCat(path.string(), ": no such file"));
  }
  if (!std::filesystem::is_regular_file(status)) {
    return absl::InvalidArgumentError(StrCat(path.string(), ": not a regular file"));
  }
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) {
    return absl::InvalidArgumentError(StrCat(path.string(), ": ", error.message()));
  }
  if (size > limits.max_bytes) {
    return absl::InvalidArgumentError(
        StrCat(path.string(), ": ", size, " bytes, at most ", limits.max_bytes, " are read"));
  }
  std::ifstream in(path, std::ios::binary);
  std::string text(static_cast<size_t>(size), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in.is_open() || in.gcount() != static_cast<std::streamsize>(text.size())) {
    return absl::InvalidArgumentError(StrCat(path.string(), ": cannot be read"));
  }
  return ParseJson(text, name, limits);
}

const Json* JsonFind(const Json& object, const char* field) {
  if (!object.is_object()) return nullptr;
  const auto member = object.find(field);
  if (member == object.end() || member->is_null()) return nullptr;
  return &*member;
}

absl::StatusOr<int64_t> JsonInt(const Json& object,
                                const char* field,
                                std::string_view what,
                                int64_t min,
                                int64_t max,
                                std::optional<int64_t> fallback) {
  const std::string expected = StrCat("an integer in [", min, ", ", max, "]");
  const Json* value = JsonFind(object, field);
  if (value == nullptr) {
    if (fallback.has_value()) return *fallback;
    return Missing(field, what, expected);
  }
  if (!value->is_number_integer()) return WrongType(*value, field, what, expected);
  if (value->is_number_unsigned() &&
      value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return WrongType(*value, field, what, expected);
  }
  const int64_t number = value->get<int64_t>();
  if (number < min || number > max) return WrongType(*value, field, what, expected);
  return number;
}

absl::StatusOr<double> JsonNumber(const Json& object,
                                  const char* field,
                                  std::string_view what,
                                  std::optional<double> fallback) {
  const Json* value = JsonFind(object, field);
  if (value == nullptr) {
    if (fallback.has_value()) return *fallback;
    return Missing(field, what, "a number");
  }
  if (!value->is_number()) return WrongType(*value, field, what, "a number");
  return value->get<double>();
}

absl::StatusOr<bool> JsonBool(const Json& object,
                              const char* field,
                              std::string_view what,
                              std::optional<bool> fallback) {
  const Json* value = JsonFind(object, field);
  if (value == nullptr) {
    if (fallback.has_value()) return *fallback;
    return Missing(field, what, "true or false");
  }
  if (!value->is_boolean()) return WrongType(*value, field, what, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonString(const Json& object,
                                       const char* field,
                                       std::string_view what,
                                       std::optional<std::string> fallback) {
  const Json* value = JsonFind(object, field);
  if (value == nullptr) {
    if (fallback.has_value()) return *std::move(fallback);
    return Missing(field, what, "a string");
  }
  if (!value->is_string()) return WrongType(*value, field, what, "a string");
  return value->get<std::string>();
}

}  // namespace moesaic
