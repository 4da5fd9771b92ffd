#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/routing_tap.h"
#include "memory/kv_cache.h"
#include "model/model_config.h"

namespace moesaic {

struct EngineOptions {
  int32_t max_batch_tokens = 2048;  // rows of a step; the model's (ModelOptions)
  int32_t max_logits_rows = 2048;   // of a step; the model's (ModelOptions)
  int32_t max_sequences = 64;       // running at once
  int32_t max_queue = 256;          // requests waiting behind them
  int32_t max_model_len = 0;        // 0: the model's
  int64_t kv_memory_bytes =
      0;  // 0: enough for max_sequences x max_model_len, at most a quarter of RAM
  bool prefix_cache = true;
  RoutingTapOptions routing = {};
};

// `options` with every 0 decided for a model of `config` whose KV cache has `shape`, and
// max_model_len no longer than what the KV cache can hold. Resolving again changes nothing. Needs
// no loaded model, so that what cannot work is refused before one is read. InvalidArgument naming
// the option that is out of range.
absl::StatusOr<EngineOptions> ResolveEngineOptions(const EngineOptions& options,
                                                   const ModelConfig& config,
                                                   const KvShape& shape);

// How far back any layer looks, or 0 when one looks back to the start.
int32_t LargestSlidingWindow(const ModelConfig& config, int32_t max_model_len);

}  // namespace moesaic
