#include "model/model.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "base/thread_pool.h"
#include "memory/cpu_device.h"
#include "model/activation_buffers.h"
#include "model/decoder.h"
#include "model/rope_table.h"
#include "model/tiered_experts.h"
#include "model/weight_loader.h"

namespace moesaic {
namespace {

// Empty when the experts run from RAM.
absl::StatusOr<Decoder::Tier> CreateTier(const ModelOptions& options,
                                         const ModelWeights& weights,
                                         Stream stream) {
  Decoder::Tier tier;
  if (weights.experts.pack == nullptr) return tier;
  PackedExpertStore& pack = *weights.experts.pack;
  if (options.expert_memory == 0) {
    if (pack.all_in_host()) return tier;
    MOESAIC_ASSIGN_OR_RETURN(const int64_t needed, ExpertStore::TotalBytes(pack.shape()));
    return absl::ResourceExhaustedError(StrCat("host_memory ", options.host_memory,
                                               " does not hold the experts: they take ", needed,
                                               " bytes"));
  }
  tier.device = std::make_unique<CpuDevice>(stream.pool);
  MOESAIC_ASSIGN_OR_RETURN(std::unique_ptr<ExpertPolicy> policy,
                           MakeExpertPolicy(options.expert_policy,
                                            {.num_layers = pack.shape().num_layers,
                                             .num_experts = pack.shape().num_experts},
                                            options.use_forecast));
  MOESAIC_ASSIGN_OR_RETURN(tier.memory,
                           ExpertMemory::Create(*tier.device, pack, std::move(policy),
                                                {.budget_bytes = options.expert_memory}));
  return tier;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const ModelOptions& options,
                                                   const kernels::KernelTable& kernels,
                                                   Stream stream) {
  if (options.max_batch_tokens < 1 || options.max_logits_rows < 1 || options.max_model_len < 0) {
    return absl::InvalidArgumentError(
        StrCat("max_batch_tokens ", options.max_batch_tokens, ", max_logits_rows ",
               options.max_logits_rows, ", max_model_len ", options.max_model_len,
               ": the first two must be positive, the last not negative"));
  }
  MOESAIC_ASSIGN_OR_RETURN(ModelConfig config, LoadModelConfig(options.path));
  if (options.max_model_len > config.max_positions) {
    return absl::InvalidArgumentError(StrCat("max_model_len ", options.max_model_len,
                                             " is over the model's ", config.max_positions,
                                             " positions"));
  }
  // Entries of the routing tables are counted in int32.
  if (options.max_batch_tokens > std::numeric_limits<int32_t>::max() / config.top_k) {
    return absl::InvalidArgumentError(
        StrCat("max_batch_tokens ", options.max_batch_tokens, " is too large"));
  }
  MOESAIC_ASSIGN_OR_RETURN(ModelWeights weights, LoadWeights(options, config, kernels, stream));
  MOESAIC_ASSIGN_OR_RETURN(Decoder::Tier tier, CreateTier(options, weights, stream));
  const bool tiered = tier.memory != nullptr;
  MOESAIC_ASSIGN_OR_RETURN(RopeTable rope,
                           RopeTable::Create(config, options.Positions(config), stream));
  MOESAIC_ASSIGN_OR_RETURN(
      ActivationBuffers buffers,
      ActivationBuffers::Create(config, weights, kernels, options.max_batch_tokens,
                                std::min(options.max_logits_rows, options.max_batch_tokens),
                                stream.pool->num_threads(), tiered));
  const int64_t sums_rows = TieredExperts::SumsRows(options.max_batch_tokens, config.top_k);
  return std::make_unique<Decoder>(std::move(config), std::move(weights), std::move(rope),
                                   std::move(buffers), std::move(tier), sums_rows, kernels, stream);
}

}  // namespace moesaic
