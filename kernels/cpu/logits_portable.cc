#include "kernels/cpu/simd.h"
#include "kernels/logits.h"

namespace moesaic::kernels::portable {

#include "kernels/cpu/simd_portable.h"

#include "kernels/cpu/logits_impl.h"

}  // namespace moesaic::kernels::portable
