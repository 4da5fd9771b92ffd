#pragma once

// The CPU operators of every instruction set. Each namespace has the same functions; one that has
// no better version of an operator leaves it out and the kernel table points to a lesser one.

#include "kernels/attention.h"
#include "kernels/expert_ffn.h"
#include "kernels/gate.h"
#include "kernels/linear.h"
#include "kernels/logits.h"
#include "kernels/norm.h"
#include "kernels/qkv.h"

#define MOESAIC_DECLARE_CPU_KERNELS(isa)                               \
  namespace isa {                                                      \
  void Linear(const LinearArgs& args, Stream& stream);                 \
  void ExpertFfn(const ExpertFfnArgs& args, Stream& stream);           \
  MaxResult ArgMax(const float* logits, int64_t size);                 \
  float LogSumExp(const float* logits, int64_t size, float max_value); \
  float ExpScaled(const float* logits,                                 \
                  int64_t size,                                        \
                  float max_value,                                     \
                  float inverse_temperature,                           \
                  float* probabilities);                               \
  void RmsNorm(const RmsNormArgs& args, Stream& stream);               \
  void Qkv(const QkvArgs& args, Stream& stream);                       \
  void Attention(const AttentionArgs& args, Stream& stream);           \
  void GateTopK(const GateTopKArgs& args, Stream& stream);             \
  void Sigmoid(const SigmoidArgs& args, Stream& stream);               \
  }

namespace moesaic::kernels {

MOESAIC_DECLARE_CPU_KERNELS(portable)
MOESAIC_DECLARE_CPU_KERNELS(avx2)
MOESAIC_DECLARE_CPU_KERNELS(avx512)
MOESAIC_DECLARE_CPU_KERNELS(avx512_bf16)

// Packed weights and workspaces have one layout on every instruction set.
namespace cpu {
size_t PackedLinearBytes(DType dtype, LinearShape shape);
void PackLinear(
    DType dtype, LinearShape shape, const void* weight, int64_t first, int64_t count, void* packed);
void Embedding(const EmbeddingArgs& args, Stream& stream);
size_t AttentionWorkspaceBytes(int64_t num_heads,
                               int64_t num_kv_heads,
                               int64_t head_dim,
                               int num_threads);
size_t PackedStripeBytes(const StripeShape& shape);
void PackStripe(const PackStripeArgs& args);
size_t ExpertFfnWorkspaceBytes(const StripeShape& shape,
                               int64_t max_work_stripes,
                               int64_t num_experts,
                               int64_t max_rows,
                               int64_t max_entries,
                               int num_threads);
}  // namespace cpu
}  // namespace moesaic::kernels

#undef MOESAIC_DECLARE_CPU_KERNELS
