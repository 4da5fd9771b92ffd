#include "engine/load_engine.h"

#include <utility>

#include "base/status_macros.h"

namespace moesaic {

absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(ModelOptions model,
                                                   const EngineOptions& options,
                                                   Isa isa,
                                                   ThreadPool& pool,
                                                   MetricsRegistry& metrics) {
  const kernels::KernelTable& kernels = kernels::CpuKernels(isa);
  model.max_batch_tokens = options.max_batch_tokens;
  model.max_logits_rows = options.max_logits_rows;
  model.max_model_len = options.max_model_len;
  MOESAIC_ASSIGN_OR_RETURN(std::unique_ptr<Model> loaded,
                           Model::Load(model, kernels, Stream{.pool = &pool}));
  return Engine::Create(options, std::move(loaded), kernels, metrics);
}

}  // namespace moesaic
