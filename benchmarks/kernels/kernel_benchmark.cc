#include "benchmarks/kernels/kernel_benchmark.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "absl/time/clock.h"

namespace moesaic {
namespace {

constexpr absl::Duration kSlice = absl::Milliseconds(100);
constexpr int64_t kProbeBytes = int64_t{1} << 30;

// A benchmark that cannot have its memory has nothing to measure.
template <class T>
T ValueOrExit(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::exit(1);
  }
  return std::move(value).value();
}

}  // namespace

KernelBenchmark& KernelBenchmark::Get() {
  static KernelBenchmark instance;
  return instance;
}

KernelBenchmark::KernelBenchmark()
    : isa_(DetectIsa()),
      pool_(static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))),
      probe_(ValueOrExit(LimitProbe::Create(pool_, isa_, kProbeBytes))) {}

void KernelBenchmark::Run(benchmark::State& state,
                          DType dtype,
                          Work work,
                          absl::FunctionRef<void()> call) {
  call();
  std::vector<double> shares;
  double calls = 0.0;
  double seconds = 0.0;
  for (auto _ : state) {
    const double read = probe_->ReadBytesPerSecond(kSlice / 2);
    const double peak = probe_->FlopsPerSecond(dtype, kSlice / 2);
    const absl::Time start = absl::Now();
    int64_t slice_calls = 0;
    absl::Duration elapsed;
    do {
      call();
      ++slice_calls;
      elapsed = absl::Now() - start;
    } while (elapsed < kSlice);
    const double per_call = absl::ToDoubleSeconds(elapsed) / static_cast<double>(slice_calls);
    shares.push_back(std::max(work.bytes / read, work.flops / peak) / per_call);
    calls += static_cast<double>(slice_calls);
    seconds += absl::ToDoubleSeconds(elapsed);
    state.SetIterationTime(per_call);
  }
  std::sort(shares.begin(), shares.end());
  state.counters["us"] = 1e6 * seconds / calls;
  state.counters["GFLOP/s"] = work.flops * calls / seconds / 1e9;
  state.counters["GB/s"] = work.bytes * calls / seconds / 1e9;
  state.counters["%limit"] = 100.0 * shares[shares.size() / 2];
  state.counters["%limit_q1"] = 100.0 * shares[shares.size() / 4];
  state.counters["%limit_q3"] = 100.0 * shares[shares.size() * 3 / 4];
}

AlignedBuffer RandomBuffer(DType dtype, size_t bytes, uint32_t seed) {
  AlignedBuffer buffer = ValueOrExit(AlignedBuffer::Allocate(bytes, "a benchmark's operand"));
  std::minstd_rand generator(seed);
  const auto draw = [&] {
    return static_cast<float>(generator()) * (0.1f / 2147483647.0f) - 0.05f;
  };
  if (dtype == DType::kFloat32) {
    for (size_t i = 0; i < bytes / sizeof(float); ++i) buffer.as<float>()[i] = draw();
  } else {
    for (size_t i = 0; i < bytes / sizeof(BFloat16); ++i) {
      buffer.as<BFloat16>()[i] = ToBFloat16(draw());
    }
  }
  return buffer;
}

}  // namespace moesaic
