#pragma once

// Paged attention on the CPU: what is the same on every instruction set. The driver cuts a call
// into work items (a tile of one sequence's rows, one KV head) and splits of 256 positions, gives
// them to threads and merges them; the instruction sets supply the functions that compute.

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"

namespace moesaic::kernels {

inline constexpr int64_t kAttentionSplitTokens = 256;
// Queries (rows x heads of the group) that share one pass over K and V. More would not fit L2.
inline constexpr int64_t kAttentionTileQueries = 64;
// Heads are padded with zeros to a multiple of this in the driver's buffers, so that functions
// read whole vectors.
inline constexpr int64_t kAttentionDimUnit = 32;
// Blocks whose keys are transposed at a time.
inline constexpr int64_t kAttentionKeyBlocks = 4;

// Softmax of some queries over part of their context: per query the maximum of q.k, the sum of
// exp(scale (q.k - maximum)) and the sum of V weighted by those. A maximum of -inf: saw nothing.
struct AttentionPartial {
  float* maximum = nullptr;  // [queries]
  float* sum = nullptr;      // [queries]
  float* values = nullptr;   // [queries, padded_dim]
};

// One item's queries: `query` = row * group + head, so their positions ascend.
struct AttentionItem {
  const AttentionArgs* args = nullptr;
  const AttentionSequence* sequence = nullptr;
  int64_t kv_head = 0;
  int64_t first_row = 0;  // within the sequence
  int64_t num_rows = 0;
  int64_t group = 0;       // query heads per KV head
  int64_t padded_dim = 0;  // head_dim rounded up to kAttentionDimUnit
};

// Scratch of one worker.
struct AttentionScratch {
  void* queries = nullptr;  // [queries, padded_dim] packed
  float* keys = nullptr;    // [kAttentionKeyBlocks, padded_dim, 16] transposed
  float* scores = nullptr;  // [queries, 256]
};

struct AttentionFunctions {
  // Copies the item's queries to scratch.queries in the form that `split` wants.
  void (*pack_queries)(const AttentionItem& item, const AttentionScratch& scratch) = nullptr;
  // The partial result over positions [begin, begin + 256) as far as each query sees them. At
  // least one query sees at least one.
  void (*split)(const AttentionItem& item,
                int64_t begin,
                const AttentionScratch& scratch,
                const AttentionPartial& partial) = nullptr;
  // state = state and then partial.
  void (*merge)(const AttentionItem& item,
                const AttentionPartial& partial,
                const AttentionPartial& state) = nullptr;
  // Writes the item's part of the output.
  void (*finish)(const AttentionItem& item, const AttentionPartial& state) = nullptr;
};

// Runs the call; the same bits for any number of threads.
void RunAttention(const AttentionArgs& args, Stream& stream, const AttentionFunctions& functions);

}  // namespace moesaic::kernels
