// Sixteen floats in the compiler's generic vectors. Included inside an instruction set's namespace,
// so it has no include guard; see simd.h for what each operation means.

typedef float Float4 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));

struct Vec {
  Float4 part[4];
};

// Applies `expression` of `i` to the four parts.
#define MOESAIC_VEC_PARTS(expression) \
  Vec result;                         \
  for (int i = 0; i < 4; ++i) {       \
    result.part[i] = (expression);    \
  }                                   \
  return result

MOESAIC_SIMD Vec Broadcast(float x) { MOESAIC_VEC_PARTS((Float4{x, x, x, x})); }
MOESAIC_SIMD Vec Load(const float* p) {
  Vec result;
  __builtin_memcpy(&result, p, sizeof(result));
  return result;
}
MOESAIC_SIMD void Store(float* p, Vec x) { __builtin_memcpy(p, &x, sizeof(x)); }
MOESAIC_SIMD Vec Add(Vec a, Vec b) { MOESAIC_VEC_PARTS(a.part[i] + b.part[i]); }
MOESAIC_SIMD Vec Sub(Vec a, Vec b) { MOESAIC_VEC_PARTS(a.part[i] - b.part[i]); }
MOESAIC_SIMD Vec Mul(Vec a, Vec b) { MOESAIC_VEC_PARTS(a.part[i] * b.part[i]); }
MOESAIC_SIMD Vec Div(Vec a, Vec b) { MOESAIC_VEC_PARTS(a.part[i] / b.part[i]); }
MOESAIC_SIMD Vec MulAdd(Vec a, Vec b, Vec c) {
  MOESAIC_VEC_PARTS(a.part[i] * b.part[i] + c.part[i]);
}
MOESAIC_SIMD Vec SelectGreater(Vec a, Vec b, Vec yes, Vec no) {
  MOESAIC_VEC_PARTS((Float4)(((a.part[i] > b.part[i]) & (Int4)yes.part[i]) |
                             (~(a.part[i] > b.part[i]) & (Int4)no.part[i])));
}
MOESAIC_SIMD Vec Round(Vec x) {
  // Adding 1.5 * 2^23 leaves no fraction bits: round to nearest, ties to even.
  const Float4 magic = {12582912.0f, 12582912.0f, 12582912.0f, 12582912.0f};
  MOESAIC_VEC_PARTS((x.part[i] + magic) - magic);
}
MOESAIC_SIMD Vec Pow2(Vec x) {
  MOESAIC_VEC_PARTS((Float4)((__builtin_convertvector(x.part[i], Int4) + 127) << 23));
}
MOESAIC_SIMD Vec WidenEven(const void* pairs) {
  Vec bits = Load(static_cast<const float*>(pairs));
  MOESAIC_VEC_PARTS((Float4)((Int4)bits.part[i] << 16));
}
MOESAIC_SIMD Vec WidenOdd(const void* pairs) {
  Vec bits = Load(static_cast<const float*>(pairs));
  MOESAIC_VEC_PARTS((Float4)((Int4)bits.part[i] & -65536));
}
MOESAIC_SIMD float ReduceAdd(Vec x) {
  const Float4 sum = (x.part[0] + x.part[1]) + (x.part[2] + x.part[3]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
MOESAIC_SIMD float ReduceMax(Vec x) {
  float max = x.part[0][0];
  for (int i = 0; i < 4; ++i) {
    for (int lane = 0; lane < 4; ++lane) max = x.part[i][lane] > max ? x.part[i][lane] : max;
  }
  return max;
}

#undef MOESAIC_VEC_PARTS

#include "kernels/cpu/simd_math.h"
