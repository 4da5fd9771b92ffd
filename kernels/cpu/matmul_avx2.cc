#include "kernels/cpu/microkernels.h"
#include "kernels/cpu/simd.h"

namespace moesaic::kernels::avx2 {

#include "kernels/cpu/simd_avx2.h"

// Three rows of 32 sums take twelve of sixteen registers.
constexpr int kTileRows = 3;

#include "kernels/cpu/matmul_impl.h"

constexpr MatmulMicrokernels kMatmul = MakeMicrokernels<WidenedBFloat16Step>(true);

}  // namespace moesaic::kernels::avx2
