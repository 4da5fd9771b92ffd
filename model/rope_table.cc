#include "model/rope_table.h"

#include <algorithm>
#include <cmath>

#include "base/checked_math.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"

namespace moesaic {

int64_t RopeTable::Bytes(const ModelConfig& config, int32_t max_positions) {
  const int64_t half = static_cast<int64_t>(config.rope_inverse_frequencies.size());
  return 2 * half * max_positions * static_cast<int64_t>(sizeof(float));
}

absl::StatusOr<RopeTable> RopeTable::Create(const ModelConfig& config,
                                            int32_t max_positions,
                                            Stream stream) {
  const std::vector<float>& frequencies = config.rope_inverse_frequencies;
  const int64_t half = static_cast<int64_t>(frequencies.size());
  const size_t bytes = static_cast<size_t>(Bytes(config, max_positions)) / 2;
  RopeTable table;
  MOESAIC_ASSIGN_OR_RETURN(table.cosines_, AlignedBuffer::Allocate(bytes, "rotary embedding"));
  MOESAIC_ASSIGN_OR_RETURN(table.sines_, AlignedBuffer::Allocate(bytes, "rotary embedding"));
  float* const cosines = table.cosines_.as<float>();
  float* const sines = table.sines_.as<float>();
  constexpr int64_t kPositionsPerTask = 1024;
  stream.pool->ParallelFor(
      CeilDiv<int64_t>(max_positions, kPositionsPerTask), [&](int64_t task, int) {
        const int64_t first = task * kPositionsPerTask;
        const int64_t last = std::min<int64_t>(first + kPositionsPerTask, max_positions);
        for (int64_t position = first; position < last; ++position) {
          for (int64_t i = 0; i < half; ++i) {
            // The angle is a float32 product: the networks were trained with that rounding.
            const float angle = static_cast<float>(position) * frequencies[i];
            cosines[position * half + i] = std::cos(angle) * config.rope_attention_factor;
            sines[position * half + i] = std::sin(angle) * config.rope_attention_factor;
          }
        }
      });
  return table;
}

}  // namespace moesaic
