#pragma once

// kernels/gate.h for the instruction set of the including unit.

#include "kernels/cpu/parallel_rows.h"
#include "kernels/cpu/vector.h"
#include "kernels/gate.h"

namespace moesaic::kernels::MOESAIC_ISA {

// Below every finite logit; also what NaN and -inf count as, so that k distinct ids always exist.
constexpr float kLowestLogit = -0x1.fffffep+127f;

MOESAIC_INLINE Vec LoadLogits(const float* logits, int64_t count) {
  if (count >= kLanes) return Max(Load(logits), Broadcast(kLowestLogit));
  return Max(LoadPartial(logits, count), Broadcast(kLowestLogit));
}

struct RankedExpert {
  float logit;
  float id;  // exact: ids are below 2^24
};

// The first expert behind `previous` in the order (descending logit, ascending id).
MOESAIC_INLINE RankedExpert NextExpert(const float* logits,
                                       int64_t num_experts,
                                       RankedExpert previous) {
  const Vec previous_logit = Broadcast(previous.logit);
  const Vec previous_id = Broadcast(previous.id);
  const Vec no_id = Broadcast(0x1p+24f);
  const Vec none = Broadcast(-__builtin_inff());
  Vec best = none;
  Vec best_id = no_id;
  Vec id = LaneIndex();
  for (int64_t i = 0; i < num_experts; i += kLanes, id = id + Broadcast(kLanes)) {
    const Vec logit = LoadLogits(logits + i, num_experts - i);
    const Vec tied = Select(Less(previous_id, id), logit, none);
    Vec candidate = Select(Less(logit, previous_logit), logit, none);
    candidate = Select(Equal(logit, previous_logit), tied, candidate);
    candidate = Select(Less(id, Broadcast(static_cast<float>(num_experts))), candidate, none);
    const Mask better = Less(best, candidate);
    best = Select(better, candidate, best);
    best_id = Select(better, id, best_id);
  }
  const float logit = ReduceMax(best);
  return {logit, ReduceMin(Select(Equal(best, Broadcast(logit)), best_id, no_id))};
}

static void GateTopKRows(const void* opaque, int64_t begin, int64_t end) {
  const GateTopKArgs& args = *static_cast<const GateTopKArgs*>(opaque);
  for (int64_t row = begin; row < end; ++row) {
    const float* logits = args.logits + row * args.num_experts;
    int32_t* experts = args.experts + row * args.top_k;
    float* weights = args.weights + row * args.top_k;
    RankedExpert expert = {__builtin_inff(), -1.0f};
    float max = 0.0f;
    for (int64_t k = 0; k < args.top_k; ++k) {
      expert = NextExpert(logits, args.num_experts, expert);
      if (k == 0) max = expert.logit;
      experts[k] = static_cast<int32_t>(expert.id);
      weights[k] = expert.logit;
    }
    Vec sums = Zero();
    for (int64_t i = 0; i < args.num_experts; i += kLanes) {
      const Vec exp = Exp(LoadLogits(logits + i, args.num_experts - i) - Broadcast(max));
      const Vec left = Broadcast(static_cast<float>(args.num_experts - i));
      sums = sums + Select(Less(LaneIndex(), left), exp, Zero());
    }
    const float sum = ReduceAdd(sums);
    float chosen = 0.0f;
    for (int64_t k = 0; k < args.top_k; ++k) {
      weights[k] = Exp(weights[k] - max) / sum;
      chosen += weights[k];
    }
    if (!args.renormalize) continue;
    for (int64_t k = 0; k < args.top_k; ++k) weights[k] /= chosen;
  }
}

void GateTopK(const GateTopKArgs& args, Stream& stream) {
  ForEachRowRange(stream, args.rows, args.num_experts * (args.top_k + 4), &GateTopKRows, &args);
}

static void SigmoidRange(const void* opaque, int64_t begin, int64_t end) {
  const SigmoidArgs& args = *static_cast<const SigmoidArgs*>(opaque);
  const Vec one = Broadcast(1.0f);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    Store(args.values + i, one / (one + Exp(Zero() - Load(args.values + i))));
  }
  if (const int64_t left = end - i; left > 0) {
    const Vec x = LoadPartial(args.values + i, left);
    StorePartial(args.values + i, one / (one + Exp(Zero() - x)), left);
  }
}

void Sigmoid(const SigmoidArgs& args, Stream& stream) {
  ForEachRowRange(stream, args.count, 1, &SigmoidRange, &args);
}

}  // namespace moesaic::kernels::MOESAIC_ISA
