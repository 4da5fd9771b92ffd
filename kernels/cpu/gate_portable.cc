#define MOESAIC_ISA portable
#include "kernels/cpu/gate_impl.h"
