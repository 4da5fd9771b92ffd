#include "model/weight_plan.h"

#include <initializer_list>
#include <optional>

#include "base/checked_math.h"
#include "base/status_macros.h"

namespace moesaic {
namespace {

PackedExperts PlanExperts(int32_t num_layers,
                          int32_t num_experts,
                          const ExpertShape& shape,
                          const kernels::KernelTable& kernels) {
  PackedExperts experts;
  if (num_layers == 0 || num_experts == 0) return experts;
  experts.layout = ChooseStripeLayout(shape);
  experts.stripe = {.dtype = shape.dtype,
                    .hidden = shape.hidden,
                    .units = experts.layout.units_per_stripe,
                    .gated = shape.gated};
  experts.stripe_bytes = static_cast<int64_t>(kernels.packed_stripe_bytes(experts.stripe));
  experts.store_shape = {.num_layers = num_layers,
                         .num_experts = num_experts,
                         .stripes_per_expert = static_cast<int32_t>(experts.layout.num_stripes),
                         .slot_bytes = RoundUp(experts.stripe_bytes, kStripeAlignmentBytes)};
  return experts;
}

// Sums sizes; no result once one addition overflowed.
class ByteCount {
 public:
  void Add(std::optional<int64_t> bytes) {
    total_ = total_ && bytes ? CheckedAdd(*total_, *bytes) : std::nullopt;
  }
  void AddVector(int64_t size) { Add(size * static_cast<int64_t>(sizeof(float))); }
  std::optional<int64_t> total() const { return total_; }

 private:
  std::optional<int64_t> total_ = 0;
};

}  // namespace

ModelWeights PlanWeights(const ModelConfig& config,
                         DType dtype,
                         const kernels::KernelTable& kernels) {
  const int64_t hidden = config.hidden_size;
  ModelWeights plan;
  plan.dtype = dtype;
  plan.layers.resize(config.num_layers);
  int32_t sparse_layers = 0;
  int32_t dense_layers = 0;
  for (int32_t i = 0; i < config.num_layers; ++i) {
    LayerWeights& layer = plan.layers[i];
    layer.qkv.shape = {.out_features = QkvFeatures(config), .in_features = hidden};
    layer.attention_output.shape = {.out_features = hidden,
                                    .in_features = int64_t{config.num_heads} * config.head_dim};
    if (!config.layer_is_sparse[i]) {
      layer.dense_layer = dense_layers++;
      continue;
    }
    layer.expert_layer = sparse_layers++;
    layer.gate.shape = {.out_features = config.num_experts, .in_features = hidden};
    if (config.shared_expert_units > 0) {
      layer.shared_expert_gate.shape = {.out_features = 1, .in_features = hidden};
    }
  }
  plan.lm_head.shape = {.out_features = config.vocab_size, .in_features = hidden};
  plan.experts =
      PlanExperts(sparse_layers, config.num_experts,
                  {.dtype = dtype, .hidden = hidden, .units = config.expert_units}, kernels);
  if (config.shared_expert_units > 0) {
    plan.shared_experts = PlanExperts(
        sparse_layers, 1, {.dtype = dtype, .hidden = hidden, .units = config.shared_expert_units},
        kernels);
  }
  plan.dense_mlps = PlanExperts(
      dense_layers, 1, {.dtype = dtype, .hidden = hidden, .units = config.dense_units}, kernels);
  return plan;
}

absl::StatusOr<int64_t> PlannedBytes(const ModelWeights& plan,
                                     const ModelConfig& config,
                                     const kernels::KernelTable& kernels) {
  ByteCount bytes;
  const auto add_linear = [&](const PackedLinear& linear) {
    if (linear.shape.out_features == 0) return;
    bytes.Add(static_cast<int64_t>(kernels.packed_linear_bytes(plan.dtype, linear.shape)));
  };
  for (const LayerWeights& layer : plan.layers) {
    for (const PackedLinear* linear :
         {&layer.qkv, &layer.attention_output, &layer.gate, &layer.shared_expert_gate}) {
      add_linear(*linear);
    }
    bytes.AddVector(2 * int64_t{config.hidden_size});
    if (config.qkv_bias) bytes.AddVector(layer.qkv.shape.out_features);
    if (config.output_bias) bytes.AddVector(config.hidden_size);
    if (config.qk_norm == kernels::QkNorm::kPerHead) bytes.AddVector(2 * int64_t{config.head_dim});
    if (config.qk_norm == kernels::QkNorm::kAllHeads) {
      bytes.AddVector((int64_t{config.num_heads} + config.num_kv_heads) * config.head_dim);
    }
  }
  for (const PackedExperts* experts : {&plan.experts, &plan.shared_experts, &plan.dense_mlps}) {
    MOESAIC_ASSIGN_OR_RETURN(const int64_t slots, ExpertStore::TotalBytes(experts->store_shape));
    bytes.Add(slots);
  }
  bytes.AddVector(config.hidden_size);
  add_linear(plan.lm_head);
  if (!config.tie_embeddings) {
    const std::optional<int64_t> elements =
        CheckedMul<int64_t>(config.vocab_size, config.hidden_size);
    bytes.Add(elements ? CheckedMul(*elements, static_cast<int64_t>(DTypeBytes(plan.dtype)))
                       : std::nullopt);
  }
  if (!bytes.total()) return absl::InvalidArgumentError("config.json describes too large a model");
  return *bytes.total();
}

}  // namespace moesaic
