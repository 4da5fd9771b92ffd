// Sixteen floats in one AVX-512 register. Included inside an instruction set's namespace, so it has
// no include guard; see simd.h for what each operation means.

struct Vec {
  __m512 v;
};

MOESAIC_SIMD Vec Broadcast(float x) { return {_mm512_set1_ps(x)}; }
MOESAIC_SIMD Vec Load(const float* p) { return {_mm512_loadu_ps(p)}; }
MOESAIC_SIMD void Store(float* p, Vec x) { _mm512_storeu_ps(p, x.v); }
MOESAIC_SIMD Vec Add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
MOESAIC_SIMD Vec Sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
MOESAIC_SIMD Vec Mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
MOESAIC_SIMD Vec Div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
MOESAIC_SIMD Vec MulAdd(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
MOESAIC_SIMD Vec SelectGreater(Vec a, Vec b, Vec yes, Vec no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), no.v, yes.v)};
}
MOESAIC_SIMD Vec Round(Vec x) {
  return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
MOESAIC_SIMD Vec Pow2(Vec x) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(x.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
MOESAIC_SIMD Vec WidenEven(const void* pairs) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(pairs), 16))};
}
MOESAIC_SIMD Vec WidenOdd(const void* pairs) {
  return {
      _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(pairs), _mm512_set1_epi32(-65536)))};
}
MOESAIC_SIMD float ReduceAdd(Vec x) { return _mm512_reduce_add_ps(x.v); }
MOESAIC_SIMD float ReduceMax(Vec x) { return _mm512_reduce_max_ps(x.v); }

#include "kernels/cpu/simd_math.h"
