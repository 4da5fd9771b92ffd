#define MOESAIC_ISA avx2
#include "kernels/cpu/qkv_impl.h"
