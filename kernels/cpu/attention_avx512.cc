#define MOESAIC_ISA avx512
#include "kernels/cpu/attention_impl.h"
