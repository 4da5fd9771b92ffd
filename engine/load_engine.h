#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "base/isa.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/expert_budget.h"

namespace moesaic {

// Loads a model for the CPU device and starts an engine that owns it. `max_batch_tokens`,
// `max_logits_rows` and `max_model_len` of `options` hold for the model too. `isa` must be one of
// this machine's (ParseIsa); `pool` must outlive the engine. Errors: those of Model::Load and
// Engine::Create.
absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(ModelOptions model,
                                                   const ExpertTierOptions& experts,
                                                   const EngineOptions& options,
                                                   Isa isa,
                                                   ThreadPool& pool,
                                                   MetricsRegistry& metrics);

}  // namespace moesaic
