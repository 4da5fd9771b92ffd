#pragma once

// What the tests of CPU operators share: the instruction sets of this machine and random operands.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/isa.h"

namespace moesaic::kernels {

inline std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (isa <= DetectIsa()) isas.push_back(isa);
  }
  return isas;
}

// A matrix in `dtype`, with the values it really holds as float32.
struct Operand {
  DType dtype;
  std::vector<std::byte> data;
  std::vector<float> values;

  Operand(DType type, const std::vector<float>& source)
      : dtype(type), data(source.size() * DTypeBytes(type)), values(source) {
    for (size_t i = 0; i < source.size(); ++i) {
      if (type == DType::kFloat32) {
        std::memcpy(&data[i * 4], &source[i], 4);
      } else {
        const BFloat16 rounded = ToBFloat16(source[i]);
        std::memcpy(&data[i * 2], &rounded, 2);
        values[i] = ToFloat(rounded);
      }
    }
  }

  // Rows [first, first + count) of a row-major matrix of `columns`.
  Operand Rows(int64_t first, int64_t count, int64_t columns) const {
    return Operand(dtype, std::vector<float>(values.begin() + first * columns,
                                             values.begin() + (first + count) * columns));
  }
};

inline std::vector<float> RandomValues(int64_t count, float scale, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

}  // namespace moesaic::kernels
