#pragma once

// The vector operations that norm, QKV, attention and gate are written in, for the instruction set
// that this translation unit is compiled for. A vector has the machine's own length and may be
// loaded in part (matmul's kernels/cpu/simd.h has 16 lanes everywhere, as packed weights do).
//
// Everything here is force-inlined and lives in a namespace of its instruction set, so that no code
// compiled with wide instructions can be linked into a path that runs on a lesser machine. Include
// it only from such units, and nothing with inline functions of others that they would call.

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef MOESAIC_ISA
#define MOESAIC_ISA portable
#endif
#define MOESAIC_INLINE static inline __attribute__((always_inline))

namespace moesaic::kernels::MOESAIC_ISA {

// Bits of a bfloat16 number; kept apart from base/dtype.h, whose functions are shared by all units.
using BFloat16Bits = uint16_t;

MOESAIC_INLINE float BFloat16BitsToFloat(BFloat16Bits bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof(value));
  return value;
}

MOESAIC_INLINE int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
MOESAIC_INLINE int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using Vec = __m512;
using Mask = __mmask16;

MOESAIC_INLINE __mmask16 FirstLanes(int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1u);
}
MOESAIC_INLINE Vec Zero() { return _mm512_setzero_ps(); }
MOESAIC_INLINE Vec Broadcast(float x) { return _mm512_set1_ps(x); }
MOESAIC_INLINE Vec LaneIndex() {
  return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
MOESAIC_INLINE Vec Load(const float* p) { return _mm512_loadu_ps(p); }
MOESAIC_INLINE Vec LoadPartial(const float* p, int64_t count) {
  return _mm512_maskz_loadu_ps(FirstLanes(count), p);
}
MOESAIC_INLINE void Store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
MOESAIC_INLINE void StorePartial(float* p, Vec x, int64_t count) {
  _mm512_mask_storeu_ps(p, FirstLanes(count), x);
}
MOESAIC_INLINE Vec WidenBFloat16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
MOESAIC_INLINE Vec Load(const BFloat16Bits* p) {
  return WidenBFloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
MOESAIC_INLINE Vec LoadPartial(const BFloat16Bits* p, int64_t count) {
  return WidenBFloat16(_mm256_maskz_loadu_epi16(FirstLanes(count), p));
}
MOESAIC_INLINE __m256i NarrowBFloat16(Vec x) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
#else
  // Nearest, ties to even; a NaN keeps its quiet bit.
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(
      _mm512_srli_epi32(_mm512_mask_blend_epi32(is_nan, rounded, nan), 16));
#endif
}
MOESAIC_INLINE void Store(BFloat16Bits* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), NarrowBFloat16(x));
}
MOESAIC_INLINE void StorePartial(BFloat16Bits* p, Vec x, int64_t count) {
  _mm256_mask_storeu_epi16(p, FirstLanes(count), NarrowBFloat16(x));
}
MOESAIC_INLINE Vec MulAdd(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// The second operand where either is NaN.
MOESAIC_INLINE Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
MOESAIC_INLINE Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
MOESAIC_INLINE Mask Less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
MOESAIC_INLINE Mask Equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
MOESAIC_INLINE Vec Select(Mask mask, Vec yes, Vec no) {
  return _mm512_mask_blend_ps(mask, no, yes);
}
MOESAIC_INLINE float ReduceAdd(Vec x) { return _mm512_reduce_add_ps(x); }
MOESAIC_INLINE float ReduceMax(Vec x) { return _mm512_reduce_max_ps(x); }
MOESAIC_INLINE float ReduceMin(Vec x) { return _mm512_reduce_min_ps(x); }
MOESAIC_INLINE float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
MOESAIC_INLINE Vec RoundToInteger(Vec x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// x * 2^n for an integral n.
MOESAIC_INLINE Vec ScaleByPowerOfTwo(Vec x, Vec n) { return _mm512_scalef_ps(x, n); }

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using Vec = __m256;
using Mask = __m256;

MOESAIC_INLINE __m256i FirstLanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
MOESAIC_INLINE Vec Zero() { return _mm256_setzero_ps(); }
MOESAIC_INLINE Vec Broadcast(float x) { return _mm256_set1_ps(x); }
MOESAIC_INLINE Vec LaneIndex() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
MOESAIC_INLINE Vec Load(const float* p) { return _mm256_loadu_ps(p); }
MOESAIC_INLINE Vec LoadPartial(const float* p, int64_t count) {
  return _mm256_maskload_ps(p, FirstLanes(count));
}
MOESAIC_INLINE void Store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
MOESAIC_INLINE void StorePartial(float* p, Vec x, int64_t count) {
  _mm256_maskstore_ps(p, FirstLanes(count), x);
}
MOESAIC_INLINE Vec Load(const BFloat16Bits* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
MOESAIC_INLINE Vec LoadPartial(const BFloat16Bits* p, int64_t count) {
  BFloat16Bits padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = p[i];
  return Load(padded);
}
MOESAIC_INLINE void Store(BFloat16Bits* p, Vec x) {
  // Nearest, ties to even; a NaN keeps its quiet bit.
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i wide = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, nan, is_nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(wide, wide), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
MOESAIC_INLINE void StorePartial(BFloat16Bits* p, Vec x, int64_t count) {
  BFloat16Bits padded[kLanes];
  Store(padded, x);
  for (int64_t i = 0; i < count; ++i) p[i] = padded[i];
}
MOESAIC_INLINE Vec MulAdd(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
// The second operand where either is NaN.
MOESAIC_INLINE Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
MOESAIC_INLINE Vec Min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
MOESAIC_INLINE Mask Less(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
MOESAIC_INLINE Mask Equal(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
MOESAIC_INLINE Vec Select(Mask mask, Vec yes, Vec no) { return _mm256_blendv_ps(no, yes, mask); }
MOESAIC_INLINE float ReduceAdd(Vec x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
MOESAIC_INLINE float ReduceMax(Vec x) {
  __m128 max = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  max = _mm_max_ps(max, _mm_movehl_ps(max, max));
  return _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)));
}
MOESAIC_INLINE float ReduceMin(Vec x) {
  __m128 min = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  min = _mm_min_ps(min, _mm_movehl_ps(min, min));
  return _mm_cvtss_f32(_mm_min_ss(min, _mm_movehdup_ps(min)));
}
MOESAIC_INLINE float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
MOESAIC_INLINE Vec RoundToInteger(Vec x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// x * 2^n for an integral n in [-126, 127].
MOESAIC_INLINE Vec ScaleByPowerOfTwo(Vec x, Vec n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

#else

constexpr int kLanes = 4;
typedef float Vec __attribute__((vector_size(16)));
typedef int32_t Mask __attribute__((vector_size(16)));

MOESAIC_INLINE Vec Zero() { return Vec{}; }
MOESAIC_INLINE Vec Broadcast(float x) { return Vec{x, x, x, x}; }
MOESAIC_INLINE Vec LaneIndex() { return Vec{0, 1, 2, 3}; }
MOESAIC_INLINE Vec Load(const float* p) {
  Vec x;
  __builtin_memcpy(&x, p, sizeof(x));
  return x;
}
MOESAIC_INLINE Vec LoadPartial(const float* p, int64_t count) {
  Vec x = {};
  for (int64_t i = 0; i < count; ++i) x[i] = p[i];
  return x;
}
MOESAIC_INLINE void Store(float* p, Vec x) { __builtin_memcpy(p, &x, sizeof(x)); }
MOESAIC_INLINE void StorePartial(float* p, Vec x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) p[i] = x[i];
}
MOESAIC_INLINE Vec LoadPartial(const BFloat16Bits* p, int64_t count) {
  Vec x = {};
  for (int64_t i = 0; i < count; ++i) x[i] = BFloat16BitsToFloat(p[i]);
  return x;
}
MOESAIC_INLINE Vec Load(const BFloat16Bits* p) { return LoadPartial(p, kLanes); }
MOESAIC_INLINE void StorePartial(BFloat16Bits* p, Vec x, int64_t count) {
  // Nearest, ties to even; a NaN keeps its quiet bit.
  const Mask bits = reinterpret_cast<Mask>(x);
  const Mask rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const Mask narrow = (x == x) ? rounded : (bits | 0x400000);
  for (int64_t i = 0; i < count; ++i) {
    p[i] = static_cast<BFloat16Bits>(static_cast<uint32_t>(narrow[i]) >> 16);
  }
}
MOESAIC_INLINE void Store(BFloat16Bits* p, Vec x) { StorePartial(p, x, kLanes); }
MOESAIC_INLINE Vec MulAdd(Vec a, Vec b, Vec c) { return a * b + c; }
// The second operand where either is NaN.
MOESAIC_INLINE Vec Max(Vec a, Vec b) { return a > b ? a : b; }
MOESAIC_INLINE Vec Min(Vec a, Vec b) { return a < b ? a : b; }
MOESAIC_INLINE Mask Less(Vec a, Vec b) { return a < b; }
MOESAIC_INLINE Mask Equal(Vec a, Vec b) { return a == b; }
MOESAIC_INLINE Vec Select(Mask mask, Vec yes, Vec no) { return mask ? yes : no; }
MOESAIC_INLINE float ReduceAdd(Vec x) { return (x[0] + x[2]) + (x[1] + x[3]); }
MOESAIC_INLINE float ReduceMax(Vec x) {
  const float a = x[0] > x[2] ? x[0] : x[2];
  const float b = x[1] > x[3] ? x[1] : x[3];
  return a > b ? a : b;
}
MOESAIC_INLINE float ReduceMin(Vec x) {
  const float a = x[0] < x[2] ? x[0] : x[2];
  const float b = x[1] < x[3] ? x[1] : x[3];
  return a < b ? a : b;
}
MOESAIC_INLINE float SquareRoot(float x) { return __builtin_sqrtf(x); }
// Exact for |x| < 2^22: adding 1.5 * 2^23 leaves no fraction bits.
MOESAIC_INLINE Vec RoundToInteger(Vec x) { return (x + 12582912.0f) - 12582912.0f; }
// x * 2^n for an integral n in [-126, 127].
MOESAIC_INLINE Vec ScaleByPowerOfTwo(Vec x, Vec n) {
  const Mask exponent = __builtin_convertvector(n, Mask) + 127;
  return x * reinterpret_cast<Vec>(exponent << 23);
}

#endif

// e^x within 1 ulp, NaN for NaN; x is first brought into [-87.3, 88.3], so that neither end
// overflows or becomes subnormal. x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, so that r
// is exact), then a polynomial whose own error is below 0.1 ulp (minimax fit of (e^r - 1 - r) /
// r^2).
MOESAIC_INLINE Vec Exp(Vec x) {
  x = Max(Broadcast(-87.3f), Min(Broadcast(88.3f), x));
  const Vec n = RoundToInteger(x * Broadcast(0x1.715476p+0f));
  Vec r = MulAdd(n, Broadcast(-0x1.62e4p-1f), x);
  r = MulAdd(n, Broadcast(-0x1.7f7d1cp-20f), r);
  Vec p = Broadcast(0x1.6a23cep-10f);
  p = MulAdd(p, r, Broadcast(0x1.123a2p-7f));
  p = MulAdd(p, r, Broadcast(0x1.5558f2p-5f));
  p = MulAdd(p, r, Broadcast(0x1.555492p-3f));
  p = MulAdd(p, r, Broadcast(0x1.fffffcp-2f));
  p = MulAdd(p * r, r, r) + Broadcast(1.0f);
  return ScaleByPowerOfTwo(p, n);
}

MOESAIC_INLINE float Exp(float x) {
  float lanes[kLanes];
  Store(lanes, Exp(Broadcast(x)));
  return lanes[0];
}

}  // namespace moesaic::kernels::MOESAIC_ISA
