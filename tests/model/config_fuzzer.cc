// config.json and generation_config.json of an untrusted folder, separated by a NUL byte. An
// accepted config must hold sizes that the loader may multiply without overflow and divide by.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/model_config.h"

namespace moesaic {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckConfig(const ModelConfig& config) {
  Require(config.vocab_size > 0 && config.hidden_size > 0 && config.num_layers > 0);
  Require(config.num_kv_heads > 0 && config.num_heads % config.num_kv_heads == 0);
  Require(config.head_dim > 0 && config.head_dim % 2 == 0);
  Require(config.top_k > 0 && config.top_k <= config.num_experts);
  Require(config.expert_units > 0 && config.max_positions > 0);
  Require(config.sliding_window.size() == static_cast<size_t>(config.num_layers));
  Require(config.layer_is_sparse.size() == static_cast<size_t>(config.num_layers));
  Require(config.rope_inverse_frequencies.size() == static_cast<size_t>(config.head_dim / 2));
  for (const float frequency : config.rope_inverse_frequencies) Require(!std::isnan(frequency));
  for (const int32_t id : config.eos_token_ids) Require(id >= 0 && id < config.vocab_size);
}

}  // namespace
}  // namespace moesaic

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t split = text.find('\0');
  const std::string_view generation =
      split == std::string_view::npos ? std::string_view("{}") : text.substr(split + 1);
  const auto config = moesaic::ParseModelConfig(text.substr(0, split), generation);
  if (config.ok()) moesaic::CheckConfig(*config);
  return 0;
}
