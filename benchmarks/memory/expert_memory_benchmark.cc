// What the expert memory itself costs a layer: everything resident, a model of 48 layers with 128
// experts of 6 stripes (Qwen3-30B-A3B in miniature slots); and streaming through a small window,
// where the copies of host memory count.

#include <cstring>
#include <memory>
#include <vector>

#include <benchmark/benchmark.h>

#include "memory/cpu_device.h"
#include "memory/expert_memory.h"

namespace moesaic {
namespace {

constexpr ExpertStore::Shape kShape = {
    .num_layers = 48, .num_experts = 128, .stripes_per_expert = 6, .slot_bytes = 4096};

void RunLayer(ExpertMemory& memory,
              int64_t tick,
              const std::vector<ExpertMemory::ActiveExpert>& active) {
  memory.BeginLayer(static_cast<int32_t>(tick % memory.keys().num_layers), tick, active);
  for (;;) {
    const auto ready = memory.WaitReady();
    if (!ready.ok() || ready->empty()) break;
    benchmark::DoNotOptimize(ready->front().pointers[0]);
    memory.Consume(*ready);
  }
  memory.EndLayer();
}

void ResidentLayer(benchmark::State& state) {
  const auto policy = static_cast<ExpertPolicyKind>(state.range(1));
  CpuDevice device(nullptr);
  const ExpertStore store = *ExpertStore::Create(kShape);
  RamStripeSource source(store);
  const auto memory = *ExpertMemory::Create(
      device, source, *MakeExpertPolicy(policy, {kShape.num_layers, kShape.num_experts}, nullptr),
      {.budget_bytes = store.bytes()});
  std::vector<ExpertMemory::ActiveExpert> active;
  const auto num_active = static_cast<int32_t>(state.range(0));
  active.reserve(num_active);
  for (int32_t i = 0; i < num_active; ++i) active.push_back({i * (128 / num_active), 1});
  int64_t tick = 0;
  while (tick < kShape.num_layers) RunLayer(*memory, tick++, active);
  for (auto _ : state) RunLayer(*memory, tick++, active);
  state.counters["misses"] =
      static_cast<double>(memory->metrics().misses - int64_t{48} * num_active * 6);
}
BENCHMARK(ResidentLayer)
    ->ArgNames({"experts", "policy"})
    ->ArgsProduct({{8, 64, 128},
                   {static_cast<int>(ExpertPolicyKind::kLru),
                    static_cast<int>(ExpertPolicyKind::kLfu)}})
    ->Unit(benchmark::kMicrosecond);

// Stripes of 1.5 MiB out of host memory through so many slots.
void StreamedLayer(benchmark::State& state) {
  constexpr ExpertStore::Shape kStreamed = {
      .num_layers = 4, .num_experts = 8, .stripes_per_expert = 6, .slot_bytes = 3 << 19};
  CpuDevice device(nullptr);
  ExpertStore store = *ExpertStore::Create(kStreamed);
  const StripeKeys keys = {kStreamed.num_layers, kStreamed.num_experts,
                           kStreamed.stripes_per_expert};
  for (int32_t i = 0; i < keys.stripes(); ++i) {
    std::memset(store.MutableStripe(keys.Id(i)), 1 + i % 255, kStreamed.slot_bytes);
  }
  RamStripeSource source(store);
  const auto memory = *ExpertMemory::Create(
      device, source,
      *MakeExpertPolicy(ExpertPolicyKind::kLru, {kStreamed.num_layers, kStreamed.num_experts},
                        nullptr),
      {.budget_bytes = state.range(0) * kStreamed.slot_bytes});
  const std::vector<ExpertMemory::ActiveExpert> active = {{0, 1}, {3, 1}, {5, 2}, {7, 1}};
  int64_t tick = 0;
  for (auto _ : state) RunLayer(*memory, tick++, active);
  const ExpertMemoryMetrics metrics = memory->metrics();
  state.SetBytesProcessed(metrics.demanded_bytes);
  state.counters["stall_seconds"] = metrics.stall_seconds;
  state.counters["copy_seconds"] = metrics.copies.busy_seconds;
}
BENCHMARK(StreamedLayer)->ArgName("slots")->Arg(2)->Arg(4)->Arg(16)->UseRealTime();

}  // namespace
}  // namespace moesaic
