#include "engine/engine_options.h"

#include <algorithm>
#include <limits>

#include "base/checked_math.h"
#include "base/machine_memory.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "core/batch.h"
#include "memory/kv_block_manager.h"

namespace moesaic {
namespace {

absl::Status CheckOptions(const EngineOptions& options) {
  if (options.max_sequences < 1 || options.max_queue < 0) {
    return absl::InvalidArgumentError(StrCat("max_sequences ", options.max_sequences,
                                             " and max_queue ", options.max_queue,
                                             ": expected at least 1 and 0"));
  }
  // Else decoding sequences would starve each other.
  if (options.max_batch_tokens < options.max_sequences ||
      options.max_logits_rows < options.max_sequences) {
    return absl::InvalidArgumentError(StrCat("max_batch_tokens ", options.max_batch_tokens,
                                             " and max_logits_rows ", options.max_logits_rows,
                                             ": expected at least max_sequences (",
                                             options.max_sequences, ")"));
  }
  return absl::OkStatus();
}

// Room for max_sequences of the longest, but at most a quarter of the memory there is.
int64_t DefaultKvBytes(const EngineOptions& options, const KvShape& shape) {
  const int64_t quarter = MachineMemoryBytes() / 4;
  const int64_t blocks =
      int64_t{options.max_sequences} * CeilDiv<int64_t>(options.max_model_len, kKvBlockTokens);
  return std::min(quarter, CheckedMul(blocks, shape.BlockBytes()).value_or(quarter));
}

}  // namespace

int32_t LargestSlidingWindow(const ModelConfig& config, int32_t max_model_len) {
  int32_t largest = 0;
  for (int32_t window : config.sliding_window) {
    if (window <= 0 || window >= max_model_len) return 0;
    largest = std::max(largest, window);
  }
  return largest;
}

absl::StatusOr<EngineOptions> ResolveEngineOptions(const EngineOptions& options,
                                                   const ModelConfig& config,
                                                   const KvShape& shape) {
  MOESAIC_RETURN_IF_ERROR(CheckOptions(options));
  EngineOptions resolved = options;
  if (resolved.max_model_len == 0) resolved.max_model_len = config.max_positions;
  if (resolved.max_model_len < 1 || resolved.max_model_len > config.max_positions) {
    return absl::InvalidArgumentError(StrCat("max_model_len: got ", options.max_model_len,
                                             ", expected 1 to the model's ", config.max_positions));
  }
  if (resolved.kv_memory_bytes == 0) resolved.kv_memory_bytes = DefaultKvBytes(resolved, shape);
  const int64_t blocks = std::min<int64_t>(resolved.kv_memory_bytes / shape.BlockBytes(),
                                           std::numeric_limits<int32_t>::max());
  if (blocks < 1) {
    return absl::InvalidArgumentError(
        StrCat("KV cache (--kv-memory): ", FormatBytes(resolved.kv_memory_bytes),
               " do not hold one block of ", kKvBlockTokens, " tokens, which takes ",
               FormatBytes(shape.BlockBytes())));
  }
  const int32_t window = LargestSlidingWindow(config, resolved.max_model_len);
  const KvBlockManager rules(/*num_blocks=*/1, /*prefix_cache=*/false, window);
  // The last token's KV is never needed.
  if (rules.MaxBlocksHeld(resolved.max_model_len - 1) > blocks) {
    resolved.max_model_len = static_cast<int32_t>(blocks) * kKvBlockTokens + 1;
  }
  return resolved;
}

}  // namespace moesaic
