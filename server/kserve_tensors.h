#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/inference/grpc_service.pb.h"

namespace moesaic {

// The inputs of one ModelInferRequest, with the checks that hold for every tensor: names, shapes,
// and data that is either all typed or all raw. Borrows the message.
class InferInputs {
 public:
  static absl::StatusOr<InferInputs> Parse(const inference::ModelInferRequest& message);

  bool Has(std::string_view name) const { return Find(name) != nullptr; }
  std::vector<std::string_view> names() const;

  // The tensor's one element, or its elements. The tensor must exist. InvalidArgument naming it for
  // another datatype, a wrong number of elements, or malformed data.
  absl::StatusOr<std::string_view> Bytes(std::string_view name) const;  // valid UTF-8
  absl::StatusOr<bool> Bool(std::string_view name) const;
  absl::StatusOr<std::vector<int32_t>> Ids(std::string_view name) const;  // INT64 or INT32

 private:
  struct Input {
    const inference::ModelInferRequest::InferInputTensor* tensor;
    const std::string* raw;  // null: typed
    int64_t elements;
  };

  const Input* Find(std::string_view name) const;

  std::vector<Input> inputs_;
};

}  // namespace moesaic
