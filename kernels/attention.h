#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/stream.h"

namespace moesaic::kernels {

// Tokens in a block of the paged KV cache: [blocks][num_kv_heads][kKvBlockTokens][head_dim].
inline constexpr int64_t kKvBlockTokens = 16;

struct AttentionSequence {
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t context_tokens = 0;  // position of the first row
  const int32_t* block_table =
      nullptr;  // [ceil((context_tokens + num_rows) / 16)]; -1 behind the window
};

// Causal attention of each row over its own sequence's paged KV, grouped-query heads. Reduced in
// splits of 256 tokens at absolute positions, merged in ascending order, so a row's bits depend on
// its sequence alone. Softmax and sums are float32.
struct AttentionArgs {
  DType dtype = DType::kFloat32;  // of q, KV cache and output
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 0.0f;          // of q.k, > 0
  int64_t sliding_window = 0;  // a row at p sees positions > p - sliding_window; 0: all
  int64_t num_sequences = 0;
  const AttentionSequence* sequences = nullptr;
  const void* q = nullptr;        // [rows, num_heads * head_dim]
  const void* k_cache = nullptr;  // this layer's [blocks][num_kv_heads][16][head_dim]
  const void* v_cache = nullptr;
  void* output = nullptr;     // [rows, num_heads * head_dim]; may be q
  void* workspace = nullptr;  // AttentionWorkspaceBytes()
};
using AttentionFn = void (*)(const AttentionArgs& args, Stream& stream);
using AttentionWorkspaceBytesFn = size_t (*)(int64_t num_heads,
                                             int64_t num_kv_heads,
                                             int64_t head_dim,
                                             int num_threads);

}  // namespace moesaic::kernels
