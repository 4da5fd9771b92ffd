// Cost of choosing one token, by vocabulary and parameters. The logits are those of a trained model
// in shape: most of the mass on few tokens.

#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/isa.h"
#include "engine/logprobs.h"
#include "engine/sampler.h"
#include "kernels/kernel_table.h"

namespace moesaic {
namespace {

std::vector<float> PeakedLogits(int64_t vocab_size) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(vocab_size);
  for (float& logit : logits) logit = normal(random);
  for (int i = 0; i < 20; ++i) logits[random() % vocab_size] += 12;
  return logits;
}

void Sample(benchmark::State& state, const SamplingParams& params) {
  const kernels::KernelTable& kernels = kernels::CpuKernels(DetectIsa());
  const std::vector<float> logits = PeakedLogits(state.range(0));
  Sampler sampler(kernels, static_cast<int32_t>(state.range(0)), {});
  TokenUseMap uses;
  if (params.repetition_penalty != 1.0f) {
    for (int32_t token = 0; token < 512; ++token) uses[token * 7].output_count = 1;
  }
  int32_t position = 0;
  TokenOutput output;
  for (auto _ : state) {
    output.token = *sampler.Sample(
        logits, {.params = params, .seed = 1, .output_tokens = position++, .token_uses = uses});
    if (params.logprobs) ComputeLogprobs(logits, *params.logprobs, kernels, output);
    benchmark::DoNotOptimize(output);
  }
}

void Vocabularies(benchmark::internal::Benchmark* benchmark) {
  benchmark->Arg(32000)->Arg(151936)->Unit(benchmark::kMicrosecond);
}

BENCHMARK_CAPTURE(Sample, greedy, {.temperature = 0})->Apply(Vocabularies);
BENCHMARK_CAPTURE(Sample, greedy_logprobs_5, {.temperature = 0, .logprobs = 5})
    ->Apply(Vocabularies);
BENCHMARK_CAPTURE(Sample, greedy_penalties, {.temperature = 0, .repetition_penalty = 1.1f})
    ->Apply(Vocabularies);
BENCHMARK_CAPTURE(Sample, temperature, {.temperature = 0.8f})->Apply(Vocabularies);
BENCHMARK_CAPTURE(Sample, top_k_50, {.top_k = 50})->Apply(Vocabularies);
BENCHMARK_CAPTURE(Sample, top_p, {.top_p = 0.95f})->Apply(Vocabularies);
BENCHMARK_CAPTURE(Sample, min_p, {.min_p = 0.05f})->Apply(Vocabularies);
// The worst case: a nucleus of most of the vocabulary has to be sorted.
BENCHMARK_CAPTURE(Sample, flat_top_p, {.temperature = 100.0f, .top_p = 0.9f})->Apply(Vocabularies);

}  // namespace
}  // namespace moesaic
