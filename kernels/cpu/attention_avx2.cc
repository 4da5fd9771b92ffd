#define MOESAIC_ISA avx2
#include "kernels/cpu/attention_impl.h"
