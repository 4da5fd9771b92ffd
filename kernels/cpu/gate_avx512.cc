#define MOESAIC_ISA avx512
#include "kernels/cpu/gate_impl.h"
