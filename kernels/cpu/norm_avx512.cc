#define MOESAIC_ISA avx512
#include "kernels/cpu/norm_impl.h"
