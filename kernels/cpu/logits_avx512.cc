#include "kernels/cpu/simd.h"
#include "kernels/logits.h"

namespace moesaic::kernels::avx512 {

#include "kernels/cpu/simd_avx512.h"

#include "kernels/cpu/logits_impl.h"

}  // namespace moesaic::kernels::avx512
