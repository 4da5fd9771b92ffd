#define MOESAIC_ISA avx512
#include "kernels/cpu/qkv_impl.h"
