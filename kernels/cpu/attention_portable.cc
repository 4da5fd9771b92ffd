#define MOESAIC_ISA portable
#include "kernels/cpu/attention_impl.h"
