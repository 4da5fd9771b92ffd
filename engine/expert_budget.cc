#include "engine/expert_budget.h"

#include <algorithm>
#include <cstdlib>

#include "base/log.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "memory/expert_memory.h"
#include "memory/expert_store.h"
#include "model/weight_loader.h"
#include "model/weight_plan.h"

namespace moesaic {
namespace {

// For activations, buffers of the server and the mapped part of a checkpoint while it is packed;
// besides, a twentieth of the machine for everybody else.
constexpr int64_t kReserveBytes = int64_t{768} << 20;
constexpr int64_t kReserveShare = 20;

std::string Bytes(int64_t bytes) { return FormatBytes(static_cast<uint64_t>(bytes)); }

// Bytes of slots that `budget` stands for.
int64_t WantedBytes(const ExpertBudget& budget, int64_t expert_bytes, int64_t available) {
  switch (budget.kind) {
    case ExpertBudget::Kind::kAuto:
      return std::max<int64_t>(available, 0);
    case ExpertBudget::Kind::kBytes:
      return budget.bytes;
    case ExpertBudget::Kind::kPercent:
      return static_cast<int64_t>(static_cast<double>(expert_bytes) * budget.percent / 100.0);
  }
  return 0;
}

}  // namespace

std::filesystem::path DefaultPackDir() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  if (const auto cache = variable("XDG_CACHE_HOME"); cache.is_absolute()) {
    return cache / "moesaic" / "packs";
  }
  if (const auto home = variable("HOME"); home.is_absolute()) {
    return home / ".cache" / "moesaic" / "packs";
  }
  return "/var/tmp/moesaic/packs";
}

absl::Status ResolveExpertTier(const ExpertTierOptions& options,
                               const ModelConfig& config,
                               const kernels::KernelTable& kernels,
                               int64_t kv_bytes,
                               int64_t machine_bytes,
                               ModelOptions& model) {
  const DType dtype = ResolveDType(model.dtype, config.checkpoint_dtype);
  const ModelWeights plan = PlanWeights(config, dtype, kernels);
  MOESAIC_ASSIGN_OR_RETURN(const int64_t model_bytes, PlannedBytes(plan, config, kernels));
  MOESAIC_ASSIGN_OR_RETURN(const int64_t expert_bytes,
                           ExpertStore::TotalBytes(plan.experts.store_shape));
  if (expert_bytes == 0) return absl::OkStatus();
  const int64_t available = machine_bytes - machine_bytes / kReserveShare - kReserveBytes -
                            kv_bytes - (model_bytes - expert_bytes) - options.host_memory;
  const int64_t wanted = WantedBytes(options.expert_memory, expert_bytes, available);
  const bool chosen = options.expert_memory.kind == ExpertBudget::Kind::kAuto;
  // With a host tier asked for, slots are filled from it even when there is one for every stripe.
  if (wanted >= expert_bytes && options.host_memory == 0) {
    if (chosen) spdlog::info("all experts in memory: {}", Bytes(expert_bytes));
    return absl::OkStatus();
  }
  const int64_t minimum = ExpertMemory::MinimumBudgetBytes(plan.experts.store_shape.slot_bytes);
  if (wanted < minimum) {
    return absl::InvalidArgumentError(StrCat(
        "--expert-memory: ", chosen ? "this machine leaves " : "got ", Bytes(wanted), " (", wanted,
        " bytes), expected at least ", Bytes(minimum), " (", minimum, " bytes): two stripes"));
  }
  model.expert_memory = std::min(wanted, expert_bytes);
  model.host_memory = std::min(options.host_memory, expert_bytes);
  model.pack_dir = options.pack_dir.empty() ? DefaultPackDir() : options.pack_dir;
  model.expert_policy = options.policy;
  spdlog::info("expert memory {} of {} ({:.1f} %){}, policy {}, host tier {}, packs in {}",
               Bytes(model.expert_memory), Bytes(expert_bytes),
               100.0 * static_cast<double>(model.expert_memory) / static_cast<double>(expert_bytes),
               chosen ? ", chosen for this machine" : "",
               std::string(ExpertPolicyName(options.policy)), Bytes(model.host_memory),
               model.pack_dir.string());
  return absl::OkStatus();
}

}  // namespace moesaic
