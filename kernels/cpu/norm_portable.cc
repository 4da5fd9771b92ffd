#define MOESAIC_ISA portable
#include "kernels/cpu/norm_impl.h"
