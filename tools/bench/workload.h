#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace moesaic::bench {

// One request to send: text or token ids.
struct WorkItem {
  std::variant<std::string, std::vector<int32_t>> prompt;
  int32_t max_tokens = 0;
};

struct RandomWorkload {
  int32_t num_prompts = 0;
  int32_t input_tokens = 0;
  int32_t output_tokens = 0;
  double range_ratio = 0;  // lengths are uniform in [length * (1 - ratio), length * (1 + ratio)]
  int32_t shared_prefix_tokens = 0;  // the same ids in front of every prompt
  uint64_t seed = 0;
  int32_t vocab_size = 0;
  std::vector<int32_t> excluded_ids;  // special ids, never drawn
};

// Distinct random prompts, the same for the same seed. InvalidArgument naming the field for a shape
// that cannot be.
absl::StatusOr<std::vector<WorkItem>> MakeRandomWorkload(const RandomWorkload& options);

// Prompts from a file: each line is a text prompt, or, where a line begins with '{', JSON
// {"prompt": TEXT or [IDS], "max_tokens": N}. `max_tokens` is for lines that name none.
// InvalidArgument names the line.
absl::StatusOr<std::vector<WorkItem>> ReadWorkload(const std::filesystem::path& path,
                                                   int32_t max_tokens);

// Arrival times in seconds, ascending from the first gap: gaps are gamma distributed with shape
// `burstiness` (1: Poisson arrivals) and rescaled so that the last arrival is at count / rate, as
// vLLM's `bench serve` does. All zero for an infinite rate.
std::vector<double> ArrivalTimes(size_t count, double rate_per_s, double burstiness, uint64_t seed);

}  // namespace moesaic::bench
