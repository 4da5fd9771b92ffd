#include "tools/bench/model_profile.h"

#include "base/status_macros.h"
#include "checkpoint/json.h"

namespace moesaic::bench {

absl::StatusOr<ModelProfile> ReadModelProfile(const std::filesystem::path& path) {
  MOESAIC_ASSIGN_OR_RETURN(const Json json, ParseJsonFile(path));
  const std::string what = path.string();
  ModelProfile profile;
  MOESAIC_ASSIGN_OR_RETURN(profile.name, JsonString(json, "name", what));
  const auto read = [&](const char* field, int64_t max) {
    return JsonInt(json, field, what, 1, max);
  };
  MOESAIC_ASSIGN_OR_RETURN(const int64_t layers, read("num_hidden_layers", 10'000));
  MOESAIC_ASSIGN_OR_RETURN(const int64_t experts, read("num_experts", 65'536));
  MOESAIC_ASSIGN_OR_RETURN(const int64_t top_k, read("num_experts_per_tok", experts));
  profile.num_layers = static_cast<int32_t>(layers);
  profile.num_experts = static_cast<int32_t>(experts);
  profile.top_k = static_cast<int32_t>(top_k);
  constexpr int64_t kMax = 1 << 20;
  MOESAIC_ASSIGN_OR_RETURN(profile.hidden, read("hidden_size", kMax));
  MOESAIC_ASSIGN_OR_RETURN(profile.expert_units, read("moe_intermediate_size", kMax));
  MOESAIC_ASSIGN_OR_RETURN(profile.attention_heads, read("num_attention_heads", 4096));
  MOESAIC_ASSIGN_OR_RETURN(profile.kv_heads, read("num_key_value_heads", 4096));
  MOESAIC_ASSIGN_OR_RETURN(profile.head_dim, read("head_dim", 4096));
  MOESAIC_ASSIGN_OR_RETURN(profile.bytes_per_weight, read("bytes_per_weight", 8));
  return profile;
}

}  // namespace moesaic::bench
