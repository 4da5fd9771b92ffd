#define MOESAIC_ISA avx2
#include "kernels/cpu/gate_impl.h"
