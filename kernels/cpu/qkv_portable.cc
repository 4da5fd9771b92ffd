#define MOESAIC_ISA portable
#include "kernels/cpu/qkv_impl.h"
