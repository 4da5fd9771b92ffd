#include "kernels/expert_ffn.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "benchmarks/kernels/kernel_benchmark.h"
#include "kernels/kernel_table.h"

namespace moesaic::kernels {
namespace {

// Layers whose experts calls take in turn, so that none finds them in a cache.
constexpr size_t kExpertBytes = size_t{512} << 20;
constexpr int kRoutings = 16;

struct Routing {
  std::vector<int32_t> offsets;
  std::vector<int32_t> rows;
  std::vector<float> weights;
};

// Every row visits `top_k` different experts, all equally likely.
Routing UniformRouting(int64_t rows, int64_t num_experts, int64_t top_k, std::mt19937& generator) {
  std::vector<int32_t> chosen;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int32_t> experts(num_experts);
    std::iota(experts.begin(), experts.end(), 0);
    std::shuffle(experts.begin(), experts.end(), generator);
    chosen.insert(chosen.end(), experts.begin(), experts.begin() + top_k);
  }
  const std::vector<float> gate_weights(rows * top_k, 1.0f / static_cast<float>(top_k));
  Routing routing;
  routing.offsets.resize(num_experts + 1);
  routing.rows.resize(rows * top_k);
  routing.weights.resize(rows * top_k);
  GroupRowsByExpert(rows, top_k, num_experts, chosen.data(), gate_weights.data(),
                    routing.offsets.data(), routing.rows.data(), routing.weights.data());
  return routing;
}

void ExpertFfn(benchmark::State& state, DType dtype) {
  const int64_t rows = state.range(0);
  const int64_t num_experts = state.range(1);
  const int64_t top_k = state.range(2);
  const StripeShape shape = {dtype, state.range(3), state.range(4), true};
  const int64_t stripes_per_expert = state.range(5);
  KernelBenchmark& bench = KernelBenchmark::Get();
  const KernelTable& kernels = CpuKernels(bench.isa());
  Stream stream{&bench.pool()};

  const size_t stripe_bytes = kernels.packed_stripe_bytes(shape);
  const int64_t layer_stripes = num_experts * stripes_per_expert;
  const int64_t layers = std::max<int64_t>(1, kExpertBytes / (stripe_bytes * layer_stripes));
  const AlignedBuffer packed = RandomBuffer(dtype, stripe_bytes * layer_stripes * layers, 1);
  std::vector<const void*> stripes;
  for (int64_t s = 0; s < layer_stripes * layers; ++s) {
    stripes.push_back(packed.data() + s * stripe_bytes);
  }

  std::mt19937 generator(7);
  std::vector<Routing> routings;
  double active_experts = 0.0;
  for (int i = 0; i < kRoutings; ++i) {
    const Routing& routing =
        routings.emplace_back(UniformRouting(rows, num_experts, top_k, generator));
    for (int64_t e = 0; e < num_experts; ++e) {
      if (routing.offsets[e + 1] > routing.offsets[e]) active_experts += 1.0 / kRoutings;
    }
  }
  const AlignedBuffer input = RandomBuffer(dtype, rows * shape.hidden * DTypeBytes(dtype), 2);
  std::vector<float> output(rows * shape.hidden);
  std::vector<std::byte> workspace(kernels.expert_ffn_workspace_bytes(
      shape, stripes_per_expert, num_experts, rows, rows * top_k, bench.pool().num_threads()));
  ExpertFfnArgs args;
  args.shape = shape;
  args.num_rows = rows;
  args.stripes_per_expert = stripes_per_expert;
  args.input = input.data();
  args.output = output.data();
  args.workspace = workspace.data();
  int64_t call = 0;
  const double flops =
      6.0 * static_cast<double>(rows * top_k * shape.hidden * shape.units * stripes_per_expert);
  const double bytes = active_experts * static_cast<double>(stripes_per_expert * stripe_bytes);
  bench.Run(state, dtype, {flops, bytes}, [&] {
    const Routing& routing = routings[call % kRoutings];
    args.routed = {num_experts, routing.offsets.data(), routing.rows.data(),
                   routing.weights.data()};
    args.stripes = stripes.data() + call % layers * layer_stripes;
    ++call;
    kernels.expert_ffn(args, stream);
  });
}

void Sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "experts", "top_k", "hidden", "units", "stripes"})
      ->UseManualTime()
      ->Iterations(20);
  for (int64_t rows : {1, 4, 16, 64, 512}) {
    benchmark->Args({rows, 64, 8, 1024, 192, 2});   // the 691M Qwen3-MoE of cpu_moe
    benchmark->Args({rows, 128, 8, 2048, 128, 6});  // Qwen3-30B-A3B
  }
}
BENCHMARK_CAPTURE(ExpertFfn, bfloat16, DType::kBFloat16)->Apply(Sizes);
BENCHMARK_CAPTURE(ExpertFfn, float32, DType::kFloat32)->Apply(Sizes);

}  // namespace
}  // namespace moesaic::kernels
