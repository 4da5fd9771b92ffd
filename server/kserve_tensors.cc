#include "server/kserve_tensors.h"

#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

using Tensor = inference::ModelInferRequest::InferInputTensor;

constexpr int kMaxInputs = 16;
constexpr int kMaxDimensions = 8;
constexpr size_t kMaxNameBytes = 64;  // quoted in errors

template <typename... Args>
absl::Status TensorError(std::string_view name, const Args&... args) {
  return absl::InvalidArgumentError(
      StrCat("tensor \"", name.substr(0, kMaxNameBytes), "\": ", args...));
}

absl::StatusOr<int64_t> CountElements(const Tensor& tensor) {
  if (tensor.shape_size() == 0 || tensor.shape_size() > kMaxDimensions) {
    return TensorError(tensor.name(), "got ", tensor.shape_size(), " dimensions, expected 1 to ",
                       kMaxDimensions);
  }
  int64_t elements = 1;
  for (const int64_t size : tensor.shape()) {
    const auto product = size < 0 ? std::nullopt : CheckedMul(elements, size);
    if (!product) return TensorError(tensor.name(), "its shape is negative or too large");
    elements = *product;
  }
  return elements;
}

// The lists of a tensor's typed contents that hold anything.
int CountLists(const inference::InferTensorContents& contents) {
  int lists = 0;
  for (const int size : {contents.bool_contents_size(), contents.int_contents_size(),
                         contents.int64_contents_size(), contents.uint_contents_size(),
                         contents.uint64_contents_size(), contents.fp32_contents_size(),
                         contents.fp64_contents_size(), contents.bytes_contents_size()}) {
    lists += size > 0;
  }
  return lists;
}

absl::Status CheckText(std::string_view name, std::string_view text) {
  if (const auto offset = FindInvalidUtf8(text)) {
    return TensorError(name, "invalid UTF-8 at byte offset ", *offset);
  }
  return absl::OkStatus();
}

template <typename T>
T LoadLittleEndian(const char* bytes) {
  T value;  // the hosts this is built for are little-endian, as the protocol is
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

template <typename T>
absl::StatusOr<std::vector<int32_t>> RawIds(std::string_view name,
                                            const std::string& raw,
                                            int64_t elements) {
  const auto bytes = CheckedMul(elements, static_cast<int64_t>(sizeof(T)));
  if (!bytes || static_cast<int64_t>(raw.size()) != *bytes) {
    return TensorError(name, "got ", raw.size(), " bytes of data for ", elements, " elements of ",
                       sizeof(T), " bytes");
  }
  std::vector<int32_t> ids(static_cast<size_t>(elements));
  for (size_t i = 0; i < ids.size(); ++i) {
    const T value = LoadLittleEndian<T>(raw.data() + i * sizeof(T));
    if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
      return TensorError(name, "token id ", value, " at byte offset ", i * sizeof(T),
                         " is out of range");
    }
    ids[i] = static_cast<int32_t>(value);
  }
  return ids;
}

template <typename Values>
absl::StatusOr<std::vector<int32_t>> TypedIds(std::string_view name,
                                              const Values& values,
                                              int64_t elements) {
  if (values.size() != elements) {
    return TensorError(name, "got ", values.size(), " values for ", elements, " elements");
  }
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(elements));
  for (const auto value : values) {
    if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
      return TensorError(name, "token id ", value, " at index ", ids.size(), " is out of range");
    }
    ids.push_back(static_cast<int32_t>(value));
  }
  return ids;
}

}  // namespace

absl::StatusOr<InferInputs> InferInputs::Parse(const inference::ModelInferRequest& message) {
  if (message.inputs_size() > kMaxInputs) {
    return absl::InvalidArgumentError(
        StrCat("inputs: got ", message.inputs_size(), " tensors, expected at most ", kMaxInputs));
  }
  const bool raw = message.raw_input_contents_size() > 0;
  InferInputs inputs;
  for (int i = 0; i < message.inputs_size(); ++i) {
    const Tensor& tensor = message.inputs(i);
    if (inputs.Has(tensor.name())) return TensorError(tensor.name(), "it is given twice");
    if (raw && tensor.has_contents()) {
      return TensorError(tensor.name(),
                         "the request mixes typed contents and raw_input_contents; use one");
    }
    if (CountLists(tensor.contents()) > 1) {
      return TensorError(tensor.name(), "its contents hold values of more than one type");
    }
    if (tensor.parameters().contains("shared_memory_region")) {
      return TensorError(tensor.name(), "shared memory is not supported");
    }
    MOESAIC_ASSIGN_OR_RETURN(const int64_t elements, CountElements(tensor));
    const std::string* data =
        raw && i < message.raw_input_contents_size() ? &message.raw_input_contents(i) : nullptr;
    inputs.inputs_.push_back({&tensor, data, elements});
  }
  if (raw && message.raw_input_contents_size() != message.inputs_size()) {
    return absl::InvalidArgumentError(StrCat("raw_input_contents: got ",
                                             message.raw_input_contents_size(), " for ",
                                             message.inputs_size(), " inputs"));
  }
  return inputs;
}

const InferInputs::Input* InferInputs::Find(std::string_view name) const {
  for (const Input& input : inputs_) {
    if (input.tensor->name() == name) return &input;
  }
  return nullptr;
}

std::vector<std::string_view> InferInputs::names() const {
  std::vector<std::string_view> names;
  for (const Input& input : inputs_) names.push_back(input.tensor->name());
  return names;
}

absl::StatusOr<std::string_view> InferInputs::Bytes(std::string_view name) const {
  const Input& input = *Find(name);
  if (input.tensor->datatype() != "BYTES") return TensorError(name, "expected datatype BYTES");
  if (input.elements != 1) {
    return TensorError(name, "got ", input.elements,
                       " elements, expected one; send a request for each");
  }
  std::string_view text;
  if (input.raw != nullptr) {
    constexpr size_t kLengthBytes = 4;
    if (input.raw->size() < kLengthBytes) {
      return TensorError(name, "its data ends at byte offset ", input.raw->size(),
                         ", inside the element's 4-byte length");
    }
    const uint32_t length = LoadLittleEndian<uint32_t>(input.raw->data());
    if (length != input.raw->size() - kLengthBytes) {
      return TensorError(name, "the length at byte offset 0 says ", length, " bytes, but ",
                         input.raw->size() - kLengthBytes, " follow");
    }
    text = std::string_view(*input.raw).substr(kLengthBytes);
  } else {
    const auto& values = input.tensor->contents().bytes_contents();
    if (values.size() != 1) {
      return TensorError(name, "got ", values.size(), " values in bytes_contents, expected one");
    }
    text = values.Get(0);
  }
  MOESAIC_RETURN_IF_ERROR(CheckText(name, text));
  return text;
}

absl::StatusOr<bool> InferInputs::Bool(std::string_view name) const {
  const Input& input = *Find(name);
  if (input.tensor->datatype() != "BOOL") return TensorError(name, "expected datatype BOOL");
  if (input.elements != 1) {
    return TensorError(name, "got ", input.elements, " elements, expected one");
  }
  if (input.raw != nullptr) {
    if (input.raw->size() != 1 || static_cast<unsigned char>((*input.raw)[0]) > 1) {
      return TensorError(name, "expected one byte of data, 0 or 1");
    }
    return (*input.raw)[0] == 1;
  }
  const auto& values = input.tensor->contents().bool_contents();
  if (values.size() != 1) {
    return TensorError(name, "got ", values.size(), " values in bool_contents, expected one");
  }
  return values.Get(0);
}

absl::StatusOr<std::vector<int32_t>> InferInputs::Ids(std::string_view name) const {
  const Input& input = *Find(name);
  const inference::InferTensorContents& typed = input.tensor->contents();
  if (input.tensor->datatype() == "INT64") {
    return input.raw != nullptr ? RawIds<int64_t>(name, *input.raw, input.elements)
                                : TypedIds(name, typed.int64_contents(), input.elements);
  }
  if (input.tensor->datatype() == "INT32") {
    return input.raw != nullptr ? RawIds<int32_t>(name, *input.raw, input.elements)
                                : TypedIds(name, typed.int_contents(), input.elements);
  }
  return TensorError(name, "expected datatype INT64 or INT32");
}

}  // namespace moesaic
