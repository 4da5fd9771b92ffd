#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "model/model.h"
#include "model/model_config.h"

namespace moesaic {

// How much memory experts may take: --expert-memory.
struct ExpertBudget {
  enum class Kind : uint8_t { kAuto, kBytes, kPercent } kind = Kind::kAuto;
  int64_t bytes = 0;
  double percent = 0.0;  // of all routed experts
};

// What LoadEngine is told about experts beyond ModelOptions, which it fills from this.
struct ExpertTierOptions {
  ExpertBudget expert_memory = {};
  int64_t host_memory = 0;
  std::filesystem::path pack_dir = {};  // empty: DefaultPackDir()
  ExpertPolicyKind policy = ExpertPolicyKind::kLfu;
};

// $XDG_CACHE_HOME/moesaic/packs, else ~/.cache/moesaic/packs, else /var/tmp/moesaic/packs.
std::filesystem::path DefaultPackDir();

// Decides where the experts of `model` run: in RAM as a whole where they fit (model's tier options
// stay empty), else out of slots of a budget, from a pack. `kv_bytes` is what the KV cache will
// take; `machine_bytes` what this process may use. Logs what `auto` chose. InvalidArgument naming
// the smallest budget that works when it is too small.
absl::Status ResolveExpertTier(const ExpertTierOptions& options,
                               const ModelConfig& config,
                               const kernels::KernelTable& kernels,
                               int64_t kv_bytes,
                               int64_t machine_bytes,
                               ModelOptions& model);

}  // namespace moesaic
