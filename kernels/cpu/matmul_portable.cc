#include "kernels/cpu/microkernels.h"
#include "kernels/cpu/simd.h"

namespace moesaic::kernels::portable {

#include "kernels/cpu/simd_portable.h"

// Two rows of 32 sums fill the sixteen registers of SSE2.
constexpr int kTileRows = 2;

#include "kernels/cpu/matmul_impl.h"

constexpr MatmulMicrokernels kMatmul = MakeMicrokernels<WidenedBFloat16Step>(true);

}  // namespace moesaic::kernels::portable
