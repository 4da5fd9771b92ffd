// The safetensors header of an untrusted file. What is accepted must be true of the file: every
// view lies inside it, has the size its shape says, and together they cover the data.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/checked_math.h"
#include "checkpoint/safetensors.h"

namespace moesaic {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckTensors(std::span<const std::byte> file, const TensorMap& tensors) {
  size_t covered = 0;
  for (const auto& [name, tensor] : tensors) {
    Require(name == tensor.name);
    if (!tensor.data.empty()) {
      Require(tensor.data.data() >= file.data() + 8);
      Require(tensor.data.data() + tensor.data.size() <= file.data() + file.size());
    }
    covered += tensor.data.size();
    if (!tensor.dtype.has_value()) continue;
    uint64_t bytes = DTypeBytes(*tensor.dtype);
    for (const int64_t extent : tensor.shape) {
      Require(extent >= 0);
      const auto product = CheckedMul(bytes, static_cast<uint64_t>(extent));
      Require(product.has_value());
      bytes = *product;
    }
    Require(bytes == tensor.data.size());
  }
  Require(covered <= file.size());
}

}  // namespace
}  // namespace moesaic

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const auto tensors = moesaic::ParseSafetensors(file, "fuzz");
  if (tensors.ok()) moesaic::CheckTensors(file, *tensors);
  return 0;
}
