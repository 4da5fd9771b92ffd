#include <algorithm>
#include <cstdio>
#include <limits>

#include "base/isa.h"
#include "benchmarks/memory/memory_report.h"
#include "kernels/kernel_table.h"
#include "memory/activation_plan.h"
#include "memory/stripe_layout.h"
#include "model/decoder_activations.h"

namespace moesaic {
namespace {

constexpr DType kDType = DType::kBFloat16;
// Rows that want logits in a prefill step: the last of each prompt.
constexpr int64_t kPrefillLogitsRows = 64;
// Stripes of an expert that are on the device at once when its weights stream.
constexpr int64_t kStreamingStripes = 2;

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

NamedModel Model(const char* name,
                 int32_t hidden,
                 int32_t heads,
                 int32_t kv_heads,
                 int32_t head_dim,
                 int32_t num_experts,
                 int32_t top_k,
                 int32_t expert_units,
                 int32_t shared_units) {
  ModelConfig config;
  config.hidden_size = hidden;
  config.num_layers = 1;
  config.num_heads = heads;
  config.num_kv_heads = kv_heads;
  config.head_dim = head_dim;
  config.num_experts = num_experts;
  config.top_k = top_k;
  config.expert_units = expert_units;
  config.shared_expert_units = shared_units;
  config.layer_is_sparse = {true};
  return {name, config};
}

struct Regime {
  const char* name;
  int64_t rows;
  bool prefill;
};
constexpr Regime kRegimes[] = {{"decode 1", 1, false},       {"decode 16", 16, false},
                               {"decode 64", 64, false},     {"prefill 512", 512, true},
                               {"prefill 2048", 2048, true}, {"prefill 8192", 8192, true}};

// How a layer's experts run.
struct ExpertRun {
  int64_t stripes = 0;  // of an expert in a call, at most
  int64_t entries = 0;  // routed rows in a call, at most
};

int64_t FfnWorkspace(const kernels::KernelTable& kernels,
                     const ModelConfig& config,
                     int64_t units,
                     int64_t experts,
                     int64_t rows,
                     const ExpertRun& run,
                     int num_threads) {
  const StripeLayout layout =
      ChooseStripeLayout({.dtype = kDType, .hidden = config.hidden_size, .units = units});
  const kernels::StripeShape shape = {
      .dtype = kDType, .hidden = config.hidden_size, .units = layout.units_per_stripe};
  return static_cast<int64_t>(kernels.expert_ffn_workspace_bytes(
      shape, std::min(run.stripes, layout.num_stripes), experts, rows, run.entries, num_threads));
}

ActivationGraph StepGraph(const ModelConfig& config,
                          const Regime& regime,
                          bool streaming,
                          int64_t attention_rows,
                          int num_threads) {
  const kernels::KernelTable& kernels = kernels::CpuKernels(DetectIsa());
  ActivationSizes sizes = {.dtype = kDType,
                           .rows = regime.rows,
                           .attention_rows = std::min(regime.rows, attention_rows),
                           .logits_rows = std::min(regime.rows, kPrefillLogitsRows)};
  sizes.attention_workspace_bytes = static_cast<int64_t>(kernels.attention_workspace_bytes(
      config.num_heads, config.num_kv_heads, config.head_dim, num_threads));
  // Streaming: one expert at a time, which at worst all rows visit.
  const ExpertRun all = {std::numeric_limits<int64_t>::max(), regime.rows * config.top_k};
  const ExpertRun one = {kStreamingStripes, regime.rows};
  sizes.ffn_workspace_bytes = FfnWorkspace(kernels, config, config.expert_units, config.num_experts,
                                           regime.rows, streaming ? one : all, num_threads);
  if (config.shared_expert_units > 0) {
    // Weights that are always resident.
    sizes.mlp_workspace_bytes = FfnWorkspace(kernels, config, config.shared_expert_units, 1,
                                             regime.rows, {all.stripes, regime.rows}, num_threads);
  }
  if (streaming) {
    sizes.expert_sums_bytes = regime.rows * config.hidden_size * int64_t{sizeof(float)};
  }
  return DescribeActivations(config, sizes).graph;
}

void PrintStep(const NamedModel& model, const Regime& regime, bool streaming, int num_threads) {
  // Baselines run every operator over all rows and all stripes, as a plain executor does.
  const ActivationGraph plain = StepGraph(model.config, regime, false, regime.rows, num_threads);
  const ActivationGraph graph =
      StepGraph(model.config, regime, streaming, kAttentionRowsAtATime, num_threads);
  const int64_t separate = OneBufferPerTensor(plain).peak_bytes;
  const int64_t greedy = GreedyPlan(plain).peak_bytes;
  const int64_t greedy_cut = GreedyPlan(graph).peak_bytes;
  const int64_t plan = PlanActivations(graph).peak_bytes;
  std::printf("| %s | %s, %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.0f %% |\n", model.name.c_str(),
              regime.name, streaming ? "streaming" : "resident", MiB(separate), MiB(greedy),
              MiB(greedy_cut), MiB(plan), MiB(PeakLowerBound(graph)),
              100.0 * static_cast<double>(plan) / static_cast<double>(greedy));
}

// One expert over rows of its own, X and Y bfloat16: the two loop orders exclude each other.
void PrintFfn(const NamedModel& model, int64_t rows) {
  const int64_t row_bytes = model.config.hidden_size * 2;
  const int64_t units = model.config.expert_units;
  const int64_t stripe_units =
      ChooseStripeLayout({.dtype = kDType, .hidden = model.config.hidden_size, .units = units})
          .units_per_stripe;
  const int64_t tile = std::min<int64_t>(rows, 256);
  const auto graph = [&](int64_t hidden_bytes) {
    ActivationGraph result;
    result.tensors[result.Add("x", rows * row_bytes)].input = true;
    result.tensors[result.Add("y", rows * row_bytes)].output = true;
    result.Add("hidden", hidden_bytes);
    return result;
  };
  ActivationGraph plain = graph(rows * units * 2);
  plain.operators = {ColumnParallelLinear("up", rows, {0, row_bytes}, {2, units * 2}, 64),
                     ColumnParallelLinear("down", rows, {2, units * 2}, {1, row_bytes}, 64)};
  ActivationGraph by_rows = graph(tile * units * 2);
  by_rows.operators = {FusedFfn("ffn", FfnLoopOrder::kRowsOutermost, rows, {0, row_bytes},
                                {1, row_bytes}, tile, {2})};
  ActivationGraph by_stripes = graph(rows * stripe_units * 2);
  by_stripes.operators = {FusedFfn("ffn", FfnLoopOrder::kStripesOutermost, rows, {0, row_bytes},
                                   {1, row_bytes}, units / stripe_units, {2})};
  std::printf("| %s | %lld | %.2f | %.2f | %.2f | %.2f |\n", model.name.c_str(),
              static_cast<long long>(rows), MiB(OneBufferPerTensor(plain).peak_bytes),
              MiB(GreedyPlan(plain).peak_bytes), MiB(PlanActivations(by_rows).peak_bytes),
              MiB(PlanActivations(by_stripes).peak_bytes));
}

}  // namespace

std::vector<NamedModel> PublishedModels() {
  return {Model("Qwen3-30B-A3B", 2048, 32, 4, 128, 128, 8, 768, 0),
          Model("Mixtral 8x7B", 4096, 32, 8, 128, 8, 2, 14336, 0),
          Model("OLMoE-1B-7B", 2048, 16, 16, 128, 64, 8, 1024, 0),
          Model("Qwen1.5-MoE-A2.7B", 2048, 16, 16, 128, 60, 4, 1408, 5632)};
}

void PrintActivations(int num_threads) {
  std::printf("Activations of a step, bfloat16, %d threads, MiB; logits excluded\n\n", num_threads);
  std::printf(
      "| model | regime | one buffer per tensor | greedy best fit | greedy, same cut | plan | "
      "lower "
      "bound | plan / greedy |\n|---|---|---:|---:|---:|---:|---:|---:|\n");
  for (const NamedModel& model : PublishedModels()) {
    for (const Regime& regime : kRegimes) {
      for (const bool streaming : {false, true}) PrintStep(model, regime, streaming, num_threads);
    }
  }
  std::printf(
      "\nOne expert over private rows, MiB\n\n| model | rows | one buffer per tensor | greedy best "
      "fit | rows outermost, in place | stripes outermost |\n|---|---:|---:|---:|---:|---:|\n");
  for (const NamedModel& model : PublishedModels()) {
    for (const int64_t rows : {64, 2048, 8192}) PrintFfn(model, rows);
  }
}

}  // namespace moesaic
