#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moesaic {

inline constexpr int32_t kKvBlockTokens = 16;

// The rows of one sequence inside a batch: its tokens at positions [context_tokens, context_tokens
// + num_rows).
struct BatchSequence {
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t context_tokens = 0;  // tokens already in the KV cache
  int64_t request = 0;         // number of its request in the order of arrival, from 0
  // KV block of position p is block_table[p / kKvBlockTokens]; entries behind a sliding window may
  // be -1. Borrowed for the step.
  std::span<const int32_t> block_table;
};

// Work of one engine step: prefill chunks and decode tokens packed as rows, no padding.
struct Batch {
  std::vector<int32_t> tokens;     // [rows]
  std::vector<int32_t> positions;  // [rows]
  std::vector<BatchSequence> sequences;
  std::vector<int32_t> logits_rows;  // rows whose logits are wanted, ascending

  int32_t num_rows() const { return static_cast<int32_t>(tokens.size()); }
};

}  // namespace moesaic
