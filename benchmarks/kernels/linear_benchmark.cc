#include "kernels/linear.h"

#include "benchmarks/kernels/kernel_benchmark.h"
#include "kernels/kernel_table.h"

namespace moesaic::kernels {
namespace {

// Copies of the weight that calls take in turn, so that none finds it in a cache.
constexpr size_t kWeightBytes = size_t{512} << 20;

void Linear(benchmark::State& state, DType dtype) {
  const int64_t rows = state.range(0);
  const LinearShape shape = {state.range(1), state.range(2)};
  KernelBenchmark& bench = KernelBenchmark::Get();
  const KernelTable& kernels = CpuKernels(bench.isa());
  Stream stream{&bench.pool()};

  const size_t packed_bytes = kernels.packed_linear_bytes(dtype, shape);
  const size_t copies = std::max<size_t>(1, kWeightBytes / packed_bytes);
  const AlignedBuffer weights = RandomBuffer(dtype, packed_bytes * copies, 1);
  const AlignedBuffer input = RandomBuffer(dtype, rows * shape.in_features * DTypeBytes(dtype), 2);
  std::vector<float> output(rows * shape.out_features);
  LinearArgs args;
  args.dtype = dtype;
  args.shape = shape;
  args.rows = rows;
  args.input = input.data();
  args.output = output.data();
  size_t copy = 0;
  const double flops = 2.0 * static_cast<double>(rows * shape.out_features * shape.in_features);
  bench.Run(state, dtype, {flops, static_cast<double>(packed_bytes)}, [&] {
    args.weight = weights.data() + copy * packed_bytes;
    copy = (copy + 1) % copies;
    kernels.linear(args, stream);
  });
}

void Sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "out", "in"})->UseManualTime()->Iterations(20);
  for (int64_t rows : {1, 4, 16, 64, 512}) {
    benchmark->Args({rows, 1024, 1024});
    benchmark->Args({rows, 2048, 2048});
    if (rows <= 16) benchmark->Args({rows, 32000, 1024});  // an output head
  }
}
BENCHMARK_CAPTURE(Linear, bfloat16, DType::kBFloat16)->Apply(Sizes);
BENCHMARK_CAPTURE(Linear, float32, DType::kFloat32)->Apply(Sizes);

}  // namespace
}  // namespace moesaic::kernels
