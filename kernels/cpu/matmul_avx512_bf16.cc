#include "kernels/cpu/microkernels.h"
#include "kernels/cpu/simd.h"

namespace moesaic::kernels::avx512_bf16 {

#include "kernels/cpu/simd_avx512.h"

// Twelve rows of 32 sums take 24 of 32 registers.
constexpr int kTileRows = 12;

#include "kernels/cpu/matmul_impl.h"

// Adds both products of a pair in one instruction, whose order inside the pair is the processor's.
struct PairedBFloat16Step {
  static constexpr int64_t kABytes = 2 * sizeof(uint16_t);
  template <int R, int V>
  MOESAIC_SIMD void Run(const char* a, int64_t a_stride, const float* panel, Vec (&acc)[R][V]) {
    __m512bh b[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) b[v] = (__m512bh)_mm512_loadu_si512(panel + v * kVectorColumns);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      int32_t pair;
      __builtin_memcpy(&pair, a + r * a_stride, sizeof(pair));
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) acc[r][v].v = _mm512_dpbf16_ps(acc[r][v].v, x, b[v]);
    }
  }
};

constexpr MatmulMicrokernels kMatmul = MakeMicrokernels<PairedBFloat16Step>(false);

}  // namespace moesaic::kernels::avx512_bf16
