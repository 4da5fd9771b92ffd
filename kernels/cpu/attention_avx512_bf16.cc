#define MOESAIC_ISA avx512_bf16
#include "kernels/cpu/attention_impl.h"
