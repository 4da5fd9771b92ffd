#include "kernels/cpu/simd.h"
#include "kernels/logits.h"

namespace moesaic::kernels::avx2 {

#include "kernels/cpu/simd_avx2.h"

#include "kernels/cpu/logits_impl.h"

}  // namespace moesaic::kernels::avx2
