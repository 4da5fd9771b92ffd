#include "model/activation_buffers.h"

#include <algorithm>
#include <numeric>

#include "base/checked_math.h"
#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

constexpr int64_t kBufferAlignment = 64;

// Hands out consecutive parts of one buffer. The first pass, without memory, only adds up.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  template <typename T>
  void Take(T*& pointer, int64_t count, int64_t element_bytes) {
    pointer = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += RoundUp(count * element_bytes, kBufferAlignment);
  }
  template <typename T>
  void Take(T*& pointer, int64_t count) {
    Take(pointer, count, sizeof(T));
  }
  int64_t used() const { return used_; }

 private:
  std::byte* const base_;
  int64_t used_ = 0;
};

struct Sizes {
  int64_t rows = 0;
  int64_t logits_rows = 0;
  int64_t attention_workspace = 0;
  int64_t ffn_workspace = 0;
};

int64_t Carve(const ModelConfig& config,
              DType dtype,
              const Sizes& sizes,
              std::byte* base,
              ActivationBuffers& buffers) {
  const int64_t rows = sizes.rows;
  const int64_t hidden = config.hidden_size;
  const int64_t q_dim = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv_dim = int64_t{config.num_kv_heads} * config.head_dim;
  const int64_t element = DTypeBytes(dtype);
  Carver carver(base);
  carver.Take(buffers.residual, rows * hidden);
  carver.Take(buffers.normed, rows * hidden, element);
  carver.Take(buffers.qkv, rows * (q_dim + 2 * kv_dim));
  carver.Take(buffers.q, rows * q_dim, element);
  carver.Take(buffers.attention, rows * q_dim, element);
  carver.Take(buffers.attention_workspace, sizes.attention_workspace, 1);
  carver.Take(buffers.gate_logits, rows * config.num_experts);
  carver.Take(buffers.gate_experts, rows * config.top_k);
  carver.Take(buffers.gate_weights, rows * config.top_k);
  carver.Take(buffers.expert_offsets, config.num_experts + 1);
  carver.Take(buffers.expert_rows, rows * config.top_k);
  carver.Take(buffers.expert_weights, rows * config.top_k);
  carver.Take(buffers.every_row, rows);
  carver.Take(buffers.ones, rows);
  carver.Take(buffers.shared_weights, rows);
  carver.Take(buffers.ffn_workspace, sizes.ffn_workspace, 1);
  carver.Take(buffers.head_input, sizes.logits_rows * hidden, element);
  carver.Take(buffers.kv_slots, rows);
  carver.Take(buffers.sequences, rows);
  return carver.used();
}

}  // namespace

absl::StatusOr<ActivationBuffers> ActivationBuffers::Create(const ModelConfig& config,
                                                            const ModelWeights& weights,
                                                            const kernels::KernelTable& kernels,
                                                            int32_t max_rows,
                                                            int32_t max_logits_rows,
                                                            int num_threads) {
  Sizes sizes{.rows = max_rows, .logits_rows = max_logits_rows};
  sizes.attention_workspace = kernels.attention_workspace_bytes(
      config.num_heads, config.num_kv_heads, config.head_dim, num_threads);
  const auto include_ffn = [&](const PackedExperts& experts, int64_t num_experts, int64_t top_k) {
    if (experts.layout.num_stripes == 0) return;
    sizes.ffn_workspace = std::max<int64_t>(
        sizes.ffn_workspace,
        kernels.expert_ffn_workspace_bytes(experts.stripe, experts.layout.num_stripes, num_experts,
                                           max_rows, max_rows * top_k, num_threads));
  };
  include_ffn(weights.experts, config.num_experts, config.top_k);
  include_ffn(weights.shared_experts, 1, 1);
  include_ffn(weights.dense_mlps, 1, 1);

  ActivationBuffers buffers;
  const int64_t bytes = Carve(config, weights.dtype, sizes, nullptr, buffers);
  MOESAIC_ASSIGN_OR_RETURN(buffers.memory, AlignedBuffer::Allocate(bytes, "activations"));
  Carve(config, weights.dtype, sizes, buffers.memory.data(), buffers);
  std::iota(buffers.every_row, buffers.every_row + max_rows, 0);
  std::fill_n(buffers.ones, max_rows, 1.0f);

  const int64_t logits_bytes = int64_t{max_logits_rows} * config.vocab_size * sizeof(float);
  MOESAIC_ASSIGN_OR_RETURN(buffers.logits, AlignedBuffer::Allocate(logits_bytes, "logits"));
  return buffers;
}

}  // namespace moesaic
