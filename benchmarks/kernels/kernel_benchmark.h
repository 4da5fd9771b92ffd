#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "absl/functional/function_ref.h"
#include "base/aligned_buffer.h"
#include "base/dtype.h"
#include "base/isa.h"
#include "base/thread_pool.h"
#include "benchmarks/limit_probe.h"

namespace moesaic {

// Threads, instruction set and limit probe of a kernel benchmark: every hardware thread, the best
// set, one probe for the whole run.
class KernelBenchmark {
 public:
  static KernelBenchmark& Get();

  ThreadPool& pool() { return pool_; }
  Isa isa() const { return isa_; }

  struct Work {
    double flops = 0.0;
    double bytes = 0.0;  // of weights, which no cache may hold from call to call
  };
  // Alternates slices of the probe with slices of `call`, one pair per iteration of `state`, and
  // reports time per call, GFLOP/s, GB/s and the median share of the limit: the time that the work
  // takes at the probed read bandwidth or at the probed peak, whichever is longer, over the real.
  void Run(benchmark::State& state, DType dtype, Work work, absl::FunctionRef<void()> call);

 private:
  KernelBenchmark();

  const Isa isa_;
  ThreadPool pool_;
  std::unique_ptr<LimitProbe> probe_;
};

// `bytes` of random values of `dtype` in [-0.05, 0.05).
AlignedBuffer RandomBuffer(DType dtype, size_t bytes, uint32_t seed);

}  // namespace moesaic
