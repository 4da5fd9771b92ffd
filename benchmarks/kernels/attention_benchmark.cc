#include "kernels/attention.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "benchmarks/kernels/kernel_benchmark.h"
#include "kernels/kernel_table.h"

namespace moesaic::kernels {
namespace {

// KV caches that calls take in turn: between two calls for one layer a model reads all its weights,
// so no cache holds the KV.
constexpr int64_t kKvBytes = int64_t{256} << 20;

// `sequences` sequences of which the next `rows` rows follow `context` tokens. Bytes are those of
// each sequence's K and V once, however many query heads share them. The limit counts all
// operations at the peak of `dtype`, though the sums over V are float32 in either.
void Attention(benchmark::State& state, DType dtype) {
  const int64_t num_sequences = state.range(0);
  const int64_t context = state.range(1);
  const int64_t rows = state.range(2);
  KernelBenchmark& bench = KernelBenchmark::Get();
  const KernelTable& kernels = CpuKernels(bench.isa());
  Stream stream{&bench.pool()};

  AttentionArgs args;
  args.dtype = dtype;
  args.num_heads = state.range(3);
  args.num_kv_heads = state.range(4);
  args.head_dim = state.range(5);
  args.scale = 0.1f;
  args.num_sequences = num_sequences;

  const int64_t blocks = (context + rows + kKvBlockTokens - 1) / kKvBlockTokens;
  const int64_t token_bytes =
      args.num_kv_heads * args.head_dim * static_cast<int64_t>(DTypeBytes(dtype));
  const int64_t cache_bytes = num_sequences * blocks * kKvBlockTokens * token_bytes;
  const int64_t copies = std::max<int64_t>(1, kKvBytes / (2 * cache_bytes));
  const int64_t q_bytes = num_sequences * rows * args.num_heads * args.head_dim *
                          static_cast<int64_t>(DTypeBytes(dtype));
  const AlignedBuffer keys = RandomBuffer(dtype, copies * cache_bytes, 1);
  const AlignedBuffer values = RandomBuffer(dtype, copies * cache_bytes, 2);
  const AlignedBuffer queries = RandomBuffer(dtype, q_bytes, 3);
  const AlignedBuffer output = RandomBuffer(dtype, q_bytes, 4);
  const AlignedBuffer workspace =
      RandomBuffer(DType::kFloat32,
                   kernels.attention_workspace_bytes(args.num_heads, args.num_kv_heads,
                                                     args.head_dim, bench.pool().num_threads()),
                   5);
  args.q = queries.data();
  args.output = output.data();
  args.workspace = workspace.data();

  // A cache in use for a while: a sequence's blocks lie anywhere.
  std::vector<int32_t> ids(num_sequences * blocks);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(6));
  std::vector<AttentionSequence> sequences(num_sequences);
  for (int64_t s = 0; s < num_sequences; ++s) {
    sequences[s].first_row = static_cast<int32_t>(s * rows);
    sequences[s].num_rows = static_cast<int32_t>(rows);
    sequences[s].context_tokens = static_cast<int32_t>(context);
    sequences[s].block_table = ids.data() + s * blocks;
  }
  args.sequences = sequences.data();

  const double pairs = static_cast<double>(num_sequences * rows * args.num_heads) *
                       (static_cast<double>(context) + 0.5 * static_cast<double>(rows + 1));
  const double bytes = 2.0 * static_cast<double>(num_sequences * (context + rows) * token_bytes);
  int64_t copy = 0;
  bench.Run(state, dtype, {4.0 * pairs * static_cast<double>(args.head_dim), bytes}, [&] {
    args.k_cache = keys.data() + copy * cache_bytes;
    args.v_cache = values.data() + copy * cache_bytes;
    copy = (copy + 1) % copies;
    kernels.attention(args, stream);
  });
}

void Sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"sequences", "context", "rows", "heads", "kv_heads", "head_dim"})
      ->UseManualTime()
      ->Iterations(20);
  struct Heads {
    int64_t heads, kv_heads, head_dim;
  };
  // A 691M-parameter Qwen3-MoE, Qwen3-30B-A3B, OLMoE-1B-7B.
  for (Heads model : {Heads{16, 4, 64}, Heads{32, 4, 128}, Heads{16, 16, 128}}) {
    const auto add = [&](int64_t sequences, int64_t context, int64_t rows) {
      benchmark->Args({sequences, context, rows, model.heads, model.kv_heads, model.head_dim});
    };
    for (int64_t context : {100, 500, 4000}) add(1, context, 1);
    add(16, 500, 1);
    add(1, 0, 512);
    add(1, 1920, 128);
  }
}
BENCHMARK_CAPTURE(Attention, bfloat16, DType::kBFloat16)->Apply(Sizes);
BENCHMARK_CAPTURE(Attention, float32, DType::kFloat32)->Apply(Sizes);

}  // namespace
}  // namespace moesaic::kernels
