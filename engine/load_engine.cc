#include "engine/load_engine.h"

#include <utility>

#include "base/log.h"
#include "base/machine_memory.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "engine/engine_options.h"
#include "model/model_config.h"
#include "model/weight_loader.h"

namespace moesaic {

absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(ModelOptions model,
                                                   const ExpertTierOptions& experts,
                                                   const EngineOptions& options,
                                                   Isa isa,
                                                   ThreadPool& pool,
                                                   MetricsRegistry& metrics) {
  MOESAIC_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(model.path));
  const DType dtype = ResolveDType(model.dtype, config.checkpoint_dtype);
  MOESAIC_ASSIGN_OR_RETURN(const EngineOptions resolved,
                           ResolveEngineOptions(options, config, KvShapeOf(config, dtype)));
  const int32_t wanted = options.max_model_len > 0 ? options.max_model_len : config.max_positions;
  if (resolved.max_model_len < wanted) {
    spdlog::warn("max_model_len is {} instead of {}: a KV cache of {} holds no more (--kv-memory)",
                 resolved.max_model_len, wanted, FormatBytes(resolved.kv_memory_bytes));
  }
  const kernels::KernelTable& kernels = kernels::CpuKernels(isa);
  model.max_batch_tokens = resolved.max_batch_tokens;
  model.max_logits_rows = resolved.max_logits_rows;
  model.max_model_len = resolved.max_model_len;
  MOESAIC_RETURN_IF_ERROR(ResolveExpertTier(experts, config, kernels, resolved.kv_memory_bytes,
                                            MachineMemoryBytes(), model));
  MOESAIC_ASSIGN_OR_RETURN(std::unique_ptr<Model> loaded,
                           Model::Load(model, kernels, Stream{.pool = &pool}));
  return Engine::Create(resolved, std::move(loaded), kernels, metrics);
}

}  // namespace moesaic
