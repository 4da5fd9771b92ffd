#pragma once

// The part of a matrix product that differs between instruction sets, as a table of functions. What
// surrounds it (packing, blocking, threads) is in matmul.h and is compiled once.

#include <cstdint>

namespace moesaic::kernels {

// Packed weights come in panels of 32 output columns, two vectors of 16; the last panel of a matrix
// may be one vector wide.
inline constexpr int64_t kVectorColumns = 16;
inline constexpr int64_t kPanelVectors = 2;
inline constexpr int64_t kPanelColumns = kVectorColumns * kPanelVectors;
inline constexpr int kMaxTileRows = 12;

// One tile: `rows` rows (fixed per function) times one panel.
struct TileArgs {
  const void* a = nullptr;         // first row at the first depth step
  int64_t a_stride_bytes = 0;      // between rows
  const void* panel = nullptr;     // at the same depth step
  int64_t steps = 0;               // depth steps: 1 element of float32, a pair of bfloat16
  const void* prefetch = nullptr;  // memory to bring into L2 meanwhile
  int64_t prefetch_lines = 0;      // of 64 bytes
  bool resume = false;             // acc holds the sums over the depth before
  float* acc = nullptr;            // [rows][vectors * 16]
};
// acc[r][c] (+)= sum over k ascending of a[r][k] * panel[k][c], one float32 sum per output whatever
// the number of rows, so that a row's bits do not depend on its neighbours.
using TileFn = void (*)(const TileArgs& args);

struct MatmulMicrokernels {
  int max_rows = 0;               // tile rows, at most kMaxTileRows
  bool widened_bfloat16 = false;  // bfloat16 tiles want the rows of `a` as float32
  TileFn float32[kPanelVectors][kMaxTileRows] = {};  // [vectors - 1][rows - 1]
  TileFn bfloat16[kPanelVectors][kMaxTileRows] = {};

  void (*widen)(const uint16_t* bfloat16, int64_t count, float* output) = nullptr;
  void (*narrow)(const float* input, int64_t count, uint16_t* bfloat16) = nullptr;
  // output[i] = silu(gate[i]) * up[i]; 16 of each.
  void (*silu_mul)(const float* gate, const float* up, float* output) = nullptr;
  // output[i] = fma(weight, input[i], output[i]); `count` is any number.
  void (*add_weighted)(const float* input, float weight, int64_t count, float* output) = nullptr;
};

namespace portable {
extern const MatmulMicrokernels kMatmul;
}
namespace avx2 {
extern const MatmulMicrokernels kMatmul;
}
namespace avx512 {
extern const MatmulMicrokernels kMatmul;
}
namespace avx512_bf16 {
extern const MatmulMicrokernels kMatmul;
}

}  // namespace moesaic::kernels
