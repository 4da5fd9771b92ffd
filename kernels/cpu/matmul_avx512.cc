#include "kernels/cpu/microkernels.h"
#include "kernels/cpu/simd.h"

namespace moesaic::kernels::avx512 {

#include "kernels/cpu/simd_avx512.h"

// Twelve rows of 32 sums take 24 of 32 registers.
constexpr int kTileRows = 12;

#include "kernels/cpu/matmul_impl.h"

constexpr MatmulMicrokernels kMatmul = MakeMicrokernels<WidenedBFloat16Step>(true);

}  // namespace moesaic::kernels::avx512
