#pragma once

// Tensors that a kernel writes in place, random values for them, and names of test parameters.

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "base/dtype.h"
#include "base/isa.h"
#include "tests/kernels/kernel_test_util.h"

namespace moesaic::kernels {

inline std::string IsaTestName(const testing::TestParamInfo<Isa>& info) {
  return std::string(IsaName(info.param));
}

inline std::string IsaDTypeTestName(const testing::TestParamInfo<std::tuple<Isa, DType>>& info) {
  return std::string(IsaName(std::get<0>(info.param))) + "_" +
         std::string(DTypeName(std::get<1>(info.param)));
}

// Values of a float32 or bfloat16 tensor as a kernel sees them.
class Tensor {
 public:
  Tensor(DType dtype, size_t size) : dtype_(dtype), bytes_(size * DTypeBytes(dtype)) {}

  size_t size() const { return bytes_.size() / DTypeBytes(dtype_); }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

  float Get(size_t i) const {
    if (dtype_ == DType::kFloat32) {
      float value;
      std::memcpy(&value, bytes_.data() + 4 * i, 4);
      return value;
    }
    BFloat16 value;
    std::memcpy(&value, bytes_.data() + 2 * i, 2);
    return ToFloat(value);
  }
  void Set(size_t i, float value) {
    if (dtype_ == DType::kFloat32) {
      std::memcpy(bytes_.data() + 4 * i, &value, 4);
    } else {
      const BFloat16 narrow = ToBFloat16(value);
      std::memcpy(bytes_.data() + 2 * i, &narrow, 2);
    }
  }
  void FillWithNaN() { std::memset(bytes_.data(), 0xff, bytes_.size()); }
  // Elements [to, to + count) become those of `other` from `from`, of the same type.
  void Copy(size_t to, const Tensor& other, size_t from, size_t count) {
    const size_t size = DTypeBytes(dtype_);
    std::memcpy(bytes_.data() + to * size, other.bytes_.data() + from * size, count * size);
  }

 private:
  DType dtype_;
  std::vector<uint8_t> bytes_;
};

inline std::vector<float> RandomNormal(std::mt19937& random, size_t size, float deviation = 1.0f) {
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace moesaic::kernels
