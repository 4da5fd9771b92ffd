#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/stream.h"
#include "kernels/kernel_table.h"
#include "memory/device.h"
#include "memory/expert_memory.h"
#include "model/activation_buffers.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/rope_table.h"
#include "model/tiered_experts.h"
#include "model/weights.h"

namespace moesaic {

// The decoder-only network that every served family is: pre-norm attention with rotary embedding
// and grouped-query heads, then routed experts (and a shared one) or a dense MLP. What differs
// between families is in ModelConfig.
//
// Owner, thread, lifetime: Model's.
class Decoder final : public Model {
 public:
  // The fast tier of a model whose experts do not all lie in RAM.
  struct Tier {
    std::unique_ptr<Device> device;
    std::unique_ptr<ExpertMemory> memory;  // over weights.experts.pack
  };

  // `buffers` were made for `weights` and at least max_batch_tokens rows, `sums_rows` of them for
  // the tier, if there is one.
  Decoder(ModelConfig config,
          ModelWeights weights,
          RopeTable rope,
          ActivationBuffers buffers,
          Tier tier,
          int64_t sums_rows,
          const kernels::KernelTable& kernels,
          Stream stream);

  const ModelConfig& config() const override { return config_; }
  DType dtype() const override { return weights_.dtype; }
  KvShape kv_shape() const override;
  int64_t packed_bytes() const override { return weights_.bytes(); }
  std::span<const BlockInfo> blocks() const override { return blocks_; }

  void BeginStep(const Batch& batch, const KvCache& kv) override;
  absl::Status RunBlock(int32_t block) override;
  std::span<const float> logits() const override;
  StepCounters counters() const override { return counters_; }
  std::span<const RowFailure> failures() const override { return failures_; }
  int32_t num_expert_layers() const override { return weights_.experts.store_shape.num_layers; }
  ExpertMemory* expert_memory() override { return tier_.memory.get(); }
  void SetRoutingHook(RoutingHook* hook) override { hook_ = hook; }

 private:
  void RunEmbedding();
  void RunAttention(int32_t layer);
  // The same for rows [first, first + count) of the step, count <= kAttentionRowsAtATime.
  void RunAttentionRows(int32_t layer, int64_t first, int64_t count);
  // Cuts the step's sequences to those rows; returns how many there are.
  int64_t CutSequences(int64_t first, int64_t count);
  void RunFeedForward(int32_t layer);
  void RunHead();

  // The feed-forward half of a sparse layer, its input normalised.
  void RunRoutedExperts(const LayerWeights& layer);
  void RunSharedExpert(const LayerWeights& layer);
  // One expert that every row visits with `row_weights`.
  void RunWholeBatchExpert(const PackedExperts& experts, int32_t layer, const float* row_weights);

  void Norm(const AlignedBuffer& weight,
            int64_t rows,
            const float* input,
            const int32_t* row_index,
            void* output);
  void Linear(
      const PackedLinear& linear, int64_t rows, const void* input, float* output, bool accumulate);
  // Once per step and projection, however many times its weights are read.
  void CountWeights(const PackedLinear& linear) { counters_.dense_bytes += linear.bytes(); }
  int64_t VisibleKvTokens(int32_t layer) const;

  const ModelConfig config_;
  const ModelWeights weights_;
  const RopeTable rope_;
  ActivationBuffers buffers_;
  Tier tier_;  // its copies read from weights_
  std::optional<TieredExperts> tiered_experts_;
  RoutingHook* hook_ = nullptr;
  const kernels::KernelTable& kernels_;
  Stream stream_;
  std::vector<BlockInfo> blocks_;

  int64_t step_ = -1;  // steps begun, less one

  // The step: set by BeginStep.
  const Batch* batch_ = nullptr;
  const KvCache* kv_ = nullptr;
  int64_t rows_ = 0;
  int64_t num_logits_rows_ = 0;
  StepCounters counters_;
  std::vector<RowFailure> failures_;
};

}  // namespace moesaic
