#pragma once

// Transposition of small blocks of keys, for the instruction set of the including unit.

#include "kernels/cpu/vector.h"

namespace moesaic::kernels::MOESAIC_ISA {

#if defined(__AVX512F__)

// rows[i] lane j <-> rows[j] lane i.
MOESAIC_INLINE void TransposeLanes(__m512 (&rows)[16]) {
  __m512 a[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  // b[4g + c]: lane group l holds column 4l + c of rows 4g..4g+3.
  __m512 b[16];
  for (int g = 0; g < 4; ++g) {
    for (int h = 0; h < 2; ++h) {
      const __m512d low = _mm512_castps_pd(a[4 * g + h]);
      const __m512d high = _mm512_castps_pd(a[4 * g + 2 + h]);
      b[4 * g + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      b[4 * g + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  for (int c = 0; c < 4; ++c) {
    const __m512 even_low = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88);
    const __m512 odd_low = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
    const __m512 even_high = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    rows[c] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    rows[4 + c] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    rows[8 + c] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    rows[12 + c] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
}

#elif defined(__AVX2__)

MOESAIC_INLINE void TransposeLanes(__m256 (&rows)[8]) {
  __m256 a[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  // b[4g + c]: each half h holds column 4h + c of rows 4g..4g+3.
  __m256 b[8];
  for (int g = 0; g < 2; ++g) {
    for (int h = 0; h < 2; ++h) {
      const __m256d low = _mm256_castps_pd(a[4 * g + h]);
      const __m256d high = _mm256_castps_pd(a[4 * g + 2 + h]);
      b[4 * g + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
      b[4 * g + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
  }
  for (int c = 0; c < 4; ++c) {
    rows[c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    rows[4 + c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
}

#else

MOESAIC_INLINE void TransposeLanes(Vec (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float swapped = rows[i][j];
      rows[i][j] = rows[j][i];
      rows[j][i] = swapped;
    }
  }
}

#endif

// out[c][r] = in[r][c] as float32, for kLanes rows and `columns` <= kLanes columns.
template <typename T>
MOESAIC_INLINE void TransposeSquare(
    const T* in, int64_t in_stride, int64_t columns, float* out, int64_t out_stride) {
  Vec rows[kLanes];
  for (int r = 0; r < kLanes; ++r) {
    rows[r] =
        columns == kLanes ? Load(in + r * in_stride) : LoadPartial(in + r * in_stride, columns);
  }
  TransposeLanes(rows);
  for (int64_t c = 0; c < columns; ++c) Store(out + c * out_stride, rows[c]);
}

#if defined(__AVX512BF16__)

// A block's keys [16, head_dim] to [ceil(head_dim / 2)][16] pairs of neighbouring dimensions.
MOESAIC_INLINE void TransposePairs(const BFloat16Bits* block, int64_t head_dim, float* keys) {
  for (int64_t d = 0; d < head_dim; d += 2 * kLanes) {
    const int64_t columns = Min(2 * kLanes, head_dim - d);
    const __mmask32 mask = static_cast<__mmask32>((uint64_t{1} << columns) - 1);
    Vec rows[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      rows[r] = _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, block + r * head_dim + d));
    }
    TransposeLanes(rows);
    for (int c = 0; c < kLanes; ++c) Store(keys + (d / 2 + c) * kLanes, rows[c]);
  }
}

// sum + query[0] * (low halves of key) + query[1] * (high halves).
MOESAIC_INLINE Vec MulAddPairs(const BFloat16Bits* query, Vec key, Vec sum) {
  int32_t pair;
  __builtin_memcpy(&pair, query, sizeof(pair));
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)),
                          reinterpret_cast<__m512bh>(key));
}

#endif

}  // namespace moesaic::kernels::MOESAIC_ISA
