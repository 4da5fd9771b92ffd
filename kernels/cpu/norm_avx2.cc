#define MOESAIC_ISA avx2
#include "kernels/cpu/norm_impl.h"
