#include "model/model.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "base/thread_pool.h"
#include "model/activation_buffers.h"
#include "model/decoder.h"
#include "model/rope_table.h"
#include "model/weight_loader.h"

namespace moesaic {

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
  if (weights.experts.pack != nullptr && !weights.experts.pack->all_in_host()) {
    MOESAIC_ASSIGN_OR_RETURN(const int64_t needed,
                             ExpertStore::TotalBytes(weights.experts.store_shape));
    return absl::ResourceExhaustedError(StrCat("host_memory ", options.host_memory,
                                               " does not hold the experts: they take ", needed,
                                               " bytes"));
  }
  MOESAIC_ASSIGN_OR_RETURN(RopeTable rope,
                           RopeTable::Create(config, options.Positions(config), stream));
  MOESAIC_ASSIGN_OR_RETURN(
      ActivationBuffers buffers,
      ActivationBuffers::Create(config, weights, kernels, options.max_batch_tokens,
                                std::min(options.max_logits_rows, options.max_batch_tokens),
                                stream.pool->num_threads()));
  return std::make_unique<Decoder>(std::move(config), std::move(weights), std::move(rope),
                                   std::move(buffers), kernels, stream);
}

}  // namespace moesaic
