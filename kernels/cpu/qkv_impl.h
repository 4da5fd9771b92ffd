#pragma once

// kernels/qkv.h for the instruction set of the including unit.

#include "kernels/attention.h"
#include "kernels/cpu/inverse_rms.h"
#include "kernels/cpu/parallel_rows.h"
#include "kernels/cpu/vector.h"
#include "kernels/qkv.h"

namespace moesaic::kernels::MOESAIC_ISA {

// One head on its way from the projection's output to `y`.
struct HeadTransform {
  const float* weight;  // norm weight of this head, or null
  float inverse_rms;
  float clip;  // 0: none
  int64_t rotary_dim;
  const float* cos;  // of this row's position
  const float* sin;
};

MOESAIC_INLINE Vec LoadUpTo(const float* p, int64_t count) {
  return count >= kLanes ? Load(p) : LoadPartial(p, count);
}

template <typename T>
MOESAIC_INLINE void StoreUpTo(T* p, Vec x, int64_t count) {
  if (count >= kLanes) {
    Store(p, x);
  } else {
    StorePartial(p, x, count);
  }
}

// Elements [i, i + count) of a head, normed and clipped.
MOESAIC_INLINE Vec LoadHead(const HeadTransform& head, const float* x, int64_t i, int64_t count) {
  Vec v = LoadUpTo(x + i, count);
  if (head.weight != nullptr) {
    v = v * Broadcast(head.inverse_rms) * LoadUpTo(head.weight + i, count);
  }
  if (head.clip > 0.0f) v = Max(Broadcast(-head.clip), Min(Broadcast(head.clip), v));
  return v;
}

template <typename T>
MOESAIC_INLINE void TransformHead(const HeadTransform& head,
                                  const float* x,
                                  int64_t head_dim,
                                  T* y) {
  const int64_t half = head.rotary_dim / 2;
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t count = half - i;
    const Vec first = LoadHead(head, x, i, count);
    const Vec second = LoadHead(head, x, half + i, count);
    const Vec cos = LoadUpTo(head.cos + i, count);
    const Vec sin = LoadUpTo(head.sin + i, count);
    StoreUpTo(y + i, first * cos - second * sin, count);
    StoreUpTo(y + half + i, second * cos + first * sin, count);
  }
  for (int64_t i = head.rotary_dim; i < head_dim; i += kLanes) {
    StoreUpTo(y + i, LoadHead(head, x, i, head_dim - i), head_dim - i);
  }
}

// The heads of q or k of one row: norm by `norm_weight`, rotation, to y(head).
template <typename T, typename Destination>
MOESAIC_INLINE void TransformHeads(const QkvArgs& args,
                                   HeadTransform head,
                                   const float* x,
                                   int64_t num_heads,
                                   const float* norm_weight,
                                   Destination destination) {
  if (args.qk_norm == QkNorm::kAllHeads) {
    head.inverse_rms = InverseRms(x, num_heads * args.head_dim, args.norm_eps);
  }
  for (int64_t h = 0; h < num_heads; ++h) {
    const float* source = x + h * args.head_dim;
    if (args.qk_norm == QkNorm::kPerHead) {
      head.inverse_rms = InverseRms(source, args.head_dim, args.norm_eps);
      head.weight = norm_weight;
    } else if (args.qk_norm == QkNorm::kAllHeads) {
      head.weight = norm_weight + h * args.head_dim;
    }
    TransformHead<T>(head, source, args.head_dim, destination(h));
  }
}

template <typename T>
MOESAIC_INLINE void QkvRow(const QkvArgs& args, int64_t row) {
  const int64_t half = args.rotary_dim / 2;
  const float* q = args.qkv + row * (args.num_heads + 2 * args.num_kv_heads) * args.head_dim;
  const float* k = q + args.num_heads * args.head_dim;
  const float* v = k + args.num_kv_heads * args.head_dim;
  const int64_t block = args.kv_slots[row] / kKvBlockTokens;
  const int64_t offset = args.kv_slots[row] % kKvBlockTokens;
  const auto cache_row = [&](void* cache, int64_t h) __attribute__((always_inline)) {
    return static_cast<T*>(cache) +
           ((block * args.num_kv_heads + h) * kKvBlockTokens + offset) * args.head_dim;
  };

  HeadTransform head = {};
  head.clip = args.clip;
  for (int64_t h = 0; h < args.num_kv_heads; ++h) {
    TransformHead<T>(head, v + h * args.head_dim, args.head_dim, cache_row(args.v_cache, h));
  }
  head.rotary_dim = args.rotary_dim;
  if (half > 0) {
    head.cos = args.cos_table + args.positions[row] * half;
    head.sin = args.sin_table + args.positions[row] * half;
  }
  TransformHeads<T>(
      args, head, k, args.num_kv_heads,
      args.k_norm_weight, [&](int64_t h) __attribute__((always_inline)) {
        return cache_row(args.k_cache, h);
      });
  T* q_row = static_cast<T*>(args.q_output) + row * args.num_heads * args.head_dim;
  TransformHeads<T>(
      args, head, q, args.num_heads,
      args.q_norm_weight, [&](int64_t h) __attribute__((always_inline)) {
        return q_row + h * args.head_dim;
      });
}

static void QkvRows(const void* opaque, int64_t begin, int64_t end) {
  const QkvArgs& args = *static_cast<const QkvArgs*>(opaque);
  for (int64_t row = begin; row < end; ++row) {
    if (args.dtype == DType::kBFloat16) {
      QkvRow<BFloat16Bits>(args, row);
    } else {
      QkvRow<float>(args, row);
    }
  }
}

void Qkv(const QkvArgs& args, Stream& stream) {
  ForEachRowRange(stream, args.rows, (args.num_heads + 2 * args.num_kv_heads) * args.head_dim,
                  &QkvRows, &args);
}

}  // namespace moesaic::kernels::MOESAIC_ISA
