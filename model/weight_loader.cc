#include "model/weight_loader.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/log.h"
#include "base/machine_memory.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "base/thread_pool.h"
#include "memory/expert_sink.h"
#include "memory/model_fingerprint.h"
#include "memory/pack_writer.h"
#include "memory/packed_expert_store.h"
#include "model/family.h"
#include "model/rope_table.h"
#include "model/weight_packer.h"
#include "model/weight_plan.h"
#include "model/weight_source.h"

namespace moesaic {
namespace {

// Walks a network's tensors in the order that the decoder uses them, and fills `weights`. One load,
// one thread; borrows everything. The routed experts go to `expert_sink`; when that is null a pack
// has them, and of theirs only the names and shapes are checked.
class WeightLoader {
 public:
  WeightLoader(const ModelConfig& config,
               const Family& family,
               const ExpertLayout& layout,
               WeightSource& source,
               WeightPacker& packer,
               ExpertSink* expert_sink,
               ModelWeights& weights)
      : config_(config),
        family_(family),
        layout_(layout),
        source_(source),
        packer_(packer),
        expert_sink_(expert_sink),
        weights_(weights) {}

  absl::Status Load() {
    if (!config_.tie_embeddings) {
      MOESAIC_ASSIGN_OR_RETURN(
          const WeightMatrix table,
          source_.Matrix(kEmbeddingTensor, config_.vocab_size, config_.hidden_size));
      MOESAIC_RETURN_IF_ERROR(packer_.PackTable(table, weights_.embedding));
    }
    for (PackedExperts* experts : {&weights_.shared_experts, &weights_.dense_mlps}) {
      MOESAIC_ASSIGN_OR_RETURN(experts->store, ExpertStore::Create(experts->store_shape));
    }
    for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
      MOESAIC_RETURN_IF_ERROR(LoadLayer(layer));
    }
    MOESAIC_RETURN_IF_ERROR(LoadNorm(kFinalNormTensor, config_.hidden_size, weights_.final_norm));
    return LoadLinear(config_.tie_embeddings ? kEmbeddingTensor : kHeadTensor, weights_.lm_head);
  }

 private:
  absl::Status LoadLayer(int32_t index) {
    LayerWeights& layer = weights_.layers[index];
    const LayerTensors names = LayerTensorNames(config_, layout_, index);
    MOESAIC_RETURN_IF_ERROR(LoadNorm(names.input_norm, config_.hidden_size, layer.input_norm));
    MOESAIC_RETURN_IF_ERROR(LoadAttention(names, layer));
    MOESAIC_RETURN_IF_ERROR(
        LoadNorm(names.post_attention_norm, config_.hidden_size, layer.post_attention_norm));
    if (layer.expert_layer < 0) {
      return LoadWholeExpert(names.dense, config_.dense_units, layer.dense_layer,
                             weights_.dense_mlps);
    }
    MOESAIC_RETURN_IF_ERROR(LoadLinear(names.gate, layer.gate));
    MOESAIC_RETURN_IF_ERROR(LoadRoutedExperts(names, index, layer.expert_layer));
    if (config_.shared_expert_units == 0) return absl::OkStatus();
    MOESAIC_RETURN_IF_ERROR(LoadLinear(names.shared_expert_gate, layer.shared_expert_gate));
    return LoadWholeExpert(names.shared_expert, config_.shared_expert_units, layer.expert_layer,
                           weights_.shared_experts);
  }

  absl::Status LoadAttention(const LayerTensors& names, LayerWeights& layer) {
    const int64_t q_features = int64_t{config_.num_heads} * config_.head_dim;
    const int64_t kv_features = int64_t{config_.num_kv_heads} * config_.head_dim;
    const int64_t hidden = config_.hidden_size;
    std::array<WeightMatrix, 3> qkv;
    MOESAIC_ASSIGN_OR_RETURN(qkv[0], source_.Matrix(names.q_weight, q_features, hidden));
    MOESAIC_ASSIGN_OR_RETURN(qkv[1], source_.Matrix(names.k_weight, kv_features, hidden));
    MOESAIC_ASSIGN_OR_RETURN(qkv[2], source_.Matrix(names.v_weight, kv_features, hidden));
    MOESAIC_RETURN_IF_ERROR(packer_.PackLinear(qkv, layer.qkv));
    if (!names.q_bias.empty()) {
      std::array<WeightMatrix, 3> bias;
      MOESAIC_ASSIGN_OR_RETURN(bias[0], source_.Vector(names.q_bias, q_features, 0.0f));
      MOESAIC_ASSIGN_OR_RETURN(bias[1], source_.Vector(names.k_bias, kv_features, 0.0f));
      MOESAIC_ASSIGN_OR_RETURN(bias[2], source_.Vector(names.v_bias, kv_features, 0.0f));
      MOESAIC_RETURN_IF_ERROR(packer_.PackVectors(bias, layer.qkv.bias));
    }
    if (!names.q_norm.empty()) {
      const bool per_head = config_.qk_norm == kernels::QkNorm::kPerHead;
      MOESAIC_RETURN_IF_ERROR(
          LoadNorm(names.q_norm, per_head ? config_.head_dim : q_features, layer.q_norm));
      MOESAIC_RETURN_IF_ERROR(
          LoadNorm(names.k_norm, per_head ? config_.head_dim : kv_features, layer.k_norm));
    }
    MOESAIC_RETURN_IF_ERROR(LoadLinear(names.o_weight, layer.attention_output));
    if (names.o_bias.empty()) return absl::OkStatus();
    MOESAIC_ASSIGN_OR_RETURN(const WeightMatrix bias, source_.Vector(names.o_bias, hidden, 0.0f));
    return packer_.PackVectors({&bias, 1}, layer.attention_output.bias);
  }

  absl::Status LoadRoutedExperts(const LayerTensors& names, int32_t layer, int32_t expert_layer) {
    std::vector<ExpertMatrices> experts(config_.num_experts);
    if (layout_.fused) {
      MOESAIC_RETURN_IF_ERROR(FindFusedExperts(names, experts));
    } else {
      for (int32_t i = 0; i < config_.num_experts; ++i) {
        const MlpTensors tensors = ExpertTensorNames(family_, layout_, layer, i);
        MOESAIC_ASSIGN_OR_RETURN(experts[i], FindExpert(tensors, config_.expert_units));
      }
    }
    if (expert_sink_ == nullptr) return absl::OkStatus();
    return packer_.PackExperts(experts, expert_layer, weights_.experts, *expert_sink_);
  }

  absl::Status FindFusedExperts(const LayerTensors& names, std::vector<ExpertMatrices>& experts) {
    const int64_t units = config_.expert_units;
    MOESAIC_ASSIGN_OR_RETURN(
        const std::vector<WeightMatrix> gate_up,
        source_.Matrices(names.fused_gate_up, config_.num_experts, 2 * units, config_.hidden_size));
    MOESAIC_ASSIGN_OR_RETURN(
        std::vector<WeightMatrix> down,
        source_.Matrices(names.fused_down, config_.num_experts, config_.hidden_size, units));
    for (size_t i = 0; i < experts.size(); ++i) {
      experts[i] = {.gate = RowSlice(gate_up[i], 0, units),
                    .up = RowSlice(gate_up[i], units, units),
                    .down = std::move(down[i])};
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ExpertMatrices> FindExpert(const MlpTensors& names, int64_t units) {
    ExpertMatrices expert;
    MOESAIC_ASSIGN_OR_RETURN(expert.gate, source_.Matrix(names.gate, units, config_.hidden_size));
    MOESAIC_ASSIGN_OR_RETURN(expert.up, source_.Matrix(names.up, units, config_.hidden_size));
    MOESAIC_ASSIGN_OR_RETURN(expert.down, source_.Matrix(names.down, config_.hidden_size, units));
    return expert;
  }

  absl::Status LoadWholeExpert(const MlpTensors& names,
                               int64_t units,
                               int32_t layer,
                               PackedExperts& experts) {
    MOESAIC_ASSIGN_OR_RETURN(const ExpertMatrices expert, FindExpert(names, units));
    ExpertStoreSink sink(experts.store);
    return packer_.PackExperts({&expert, 1}, layer, experts, sink);
  }

  absl::Status LoadLinear(const std::string& name, PackedLinear& linear) {
    MOESAIC_ASSIGN_OR_RETURN(
        const WeightMatrix matrix,
        source_.Matrix(name, linear.shape.out_features, linear.shape.in_features));
    return packer_.PackLinear({&matrix, 1}, linear);
  }

  absl::Status LoadNorm(const std::string& name, int64_t size, AlignedBuffer& norm) {
    MOESAIC_ASSIGN_OR_RETURN(const WeightMatrix vector, source_.Vector(name, size, 1.0f));
    return packer_.PackVectors({&vector, 1}, norm);
  }

  const ModelConfig& config_;
  const Family& family_;
  const ExpertLayout layout_;
  WeightSource& source_;
  WeightPacker& packer_;
  ExpertSink* const expert_sink_;
  ModelWeights& weights_;
};

}  // namespace

DType ResolveDType(DTypeChoice choice, DType checkpoint_dtype) {
  switch (choice) {
    case DTypeChoice::kBFloat16:
      return DType::kBFloat16;
    case DTypeChoice::kFloat32:
      return DType::kFloat32;
    case DTypeChoice::kAuto:
      break;
  }
  return checkpoint_dtype == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
}

namespace {

absl::StatusOr<PackIdentity> IdentifyPack(const ModelOptions& options,
                                          const PackedExperts& experts,
                                          const kernels::KernelTable& kernels,
                                          const Checkpoint* checkpoint) {
  PackIdentity identity{.dtype = experts.stripe.dtype,
                        .gated = experts.stripe.gated,
                        .hidden = experts.stripe.hidden,
                        .units = experts.layout.units,
                        .units_per_stripe = experts.layout.units_per_stripe,
                        .stripe_bytes = experts.stripe_bytes,
                        .shape = experts.store_shape,
                        .inner_order = kernels.stripe_order};
  MOESAIC_ASSIGN_OR_RETURN(identity.model,
                           checkpoint != nullptr
                               ? CheckpointFingerprint(options.path, *checkpoint)
                               : GeneratedFingerprint(options.path, options.dummy_seed));
  return identity;
}

absl::StatusOr<ModelWeights> LoadOnce(const ModelOptions& options,
                                      const ModelConfig& config,
                                      const kernels::KernelTable& kernels,
                                      Stream stream) {
  const Family* family = FindFamily(config.architecture);
  if (family == nullptr) {
    return absl::InvalidArgumentError(StrCat("unknown architecture ", config.architecture));
  }
  const DType dtype = ResolveDType(options.dtype, config.checkpoint_dtype);
  ModelWeights weights = PlanWeights(config, dtype, kernels);
  MOESAIC_ASSIGN_OR_RETURN(const int64_t bytes, PlannedBytes(weights, config, kernels));
  const bool packed = !options.pack_dir.empty() && weights.experts.store_shape.num_layers > 0;
  int64_t expert_bytes = 0;  // of the pack
  if (packed) {
    MOESAIC_ASSIGN_OR_RETURN(expert_bytes, ExpertStore::TotalBytes(weights.experts.store_shape));
  }
  const int64_t ram_bytes =
      bytes - expert_bytes + std::clamp<int64_t>(options.host_memory, 0, expert_bytes);
  const int32_t positions = options.Positions(config);
  const int64_t rope_bytes = RopeTable::Bytes(config, positions);
  if (ram_bytes > MachineMemoryBytes() || rope_bytes > MachineMemoryBytes() - ram_bytes) {
    return absl::ResourceExhaustedError(
        StrCat("the model takes ", FormatBytes(ram_bytes), " in ", DTypeName(dtype), " and ",
               FormatBytes(rope_bytes), " for the rotary embedding of ", positions,
               " positions (max_position_embeddings; --max-model-len serves fewer), this machine "
               "has ",
               FormatBytes(static_cast<uint64_t>(MachineMemoryBytes())), " of memory"));
  }

  std::unique_ptr<Checkpoint> checkpoint;
  ExpertLayout layout{.moe_block = family->original_moe_block};
  if (options.load_format == LoadFormat::kAuto) {
    MOESAIC_ASSIGN_OR_RETURN(checkpoint, Checkpoint::Open(options.path));
    layout = FindExpertLayout(*family, config, *checkpoint);
  }
  WeightSource source(checkpoint.get(), options.dummy_seed);
  PackSession session;
  ExpertStoreSink ram(weights.experts.store);
  ExpertSink* sink = &ram;
  if (packed) {
    MOESAIC_ASSIGN_OR_RETURN(const PackIdentity identity,
                             IdentifyPack(options, weights.experts, kernels, checkpoint.get()));
    MOESAIC_ASSIGN_OR_RETURN(
        session, OpenOrCreatePack(options.pack_dir, identity, stream.pool->num_threads()));
    sink = session.writer.get();
  } else {
    MOESAIC_ASSIGN_OR_RETURN(weights.experts.store,
                             ExpertStore::Create(weights.experts.store_shape));
  }
  ProgressLine progress("packing weights",
                        static_cast<uint64_t>(sink == nullptr ? bytes - expert_bytes : bytes));
  WeightPacker packer(kernels, stream, dtype, checkpoint.get(), progress);
  WeightLoader loader(config, *family, layout, source, packer, sink, weights);
  MOESAIC_RETURN_IF_ERROR(loader.Load());
  if (session.writer != nullptr) {
    MOESAIC_ASSIGN_OR_RETURN(session.pack, session.writer->Finish());
  }
  progress.Finish();
  if (packed) {
    MOESAIC_ASSIGN_OR_RETURN(
        weights.experts.pack,
        PackedExpertStore::Create(std::move(session.pack), {.host_bytes = options.host_memory}));
  }
  if (const std::vector<std::string_view> unused = source.Unused(); !unused.empty()) {
    spdlog::warn("{} tensors of the checkpoint are not used, the first is {}", unused.size(),
                 std::string(unused.front()));
  }
  if (dtype == DType::kBFloat16 && source.matrices_wider_than_bfloat16() > 0) {
    spdlog::warn(
        "{} tensors were rounded to bfloat16, which loses precision (--dtype float32 keeps it)",
        source.matrices_wider_than_bfloat16());
  }
  return weights;
}

}  // namespace

absl::StatusOr<ModelWeights> LoadWeights(const ModelOptions& options,
                                         const ModelConfig& config,
                                         const kernels::KernelTable& kernels,
                                         Stream stream) {
  absl::StatusOr<ModelWeights> weights = LoadOnce(options, config, kernels, stream);
  // A stripe of the pack was damaged, and the pack is marked: the second time packs it anew.
  if (!options.pack_dir.empty() && absl::IsDataLoss(weights.status())) {
    weights = LoadOnce(options, config, kernels, stream);
  }
  return weights;
}

}  // namespace moesaic
