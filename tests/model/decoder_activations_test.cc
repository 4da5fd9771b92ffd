#include "model/decoder_activations.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "memory/activation_plan.h"
#include "memory/activation_replay.h"
#include "tests/model/dummy_networks.h"

namespace moesaic {
namespace {

ModelConfig Config(const Network& network) {
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(network.config.dump());
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

ActivationSizes Sizes(DType dtype, int64_t rows, int64_t attention_rows, int64_t sums_bytes = 0) {
  return {.dtype = dtype,
          .rows = rows,
          .attention_rows = std::min(rows, attention_rows),
          .logits_rows = std::min<int64_t>(rows, 16),
          .attention_workspace_bytes = 1024,
          .ffn_workspace_bytes = rows * 192,
          .mlp_workspace_bytes = rows * 256,
          .expert_sums_bytes = sums_bytes};
}

TEST(DecoderActivationsTest, NothingIsOverwritten) {
  for (const Network& network : Networks()) {
    const ModelConfig config = Config(network);
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const int64_t sums : {0, 24 * 96 * 4}) {
        const DecoderActivations largest = DescribeActivations(config, Sizes(dtype, 24, 16, sums));
        const ActivationPlan plan = PlanActivations(largest.graph);
        EXPECT_LE(plan.peak_bytes, GreedyPlan(largest.graph).peak_bytes);
        const std::vector<PlacementRule> rules =
            PlacementRules(largest.graph, kActivationAlignment);
        EXPECT_EQ(rules[largest.q * largest.graph.tensors.size() + largest.attention].kind,
                  PlacementRule::kInPlace);
        // Smaller steps run in the same buffers.
        for (const int64_t rows : {1, 15, 16, 17, 24}) {
          const ActivationGraph step =
              DescribeActivations(config, Sizes(dtype, rows, 16, sums)).graph;
          const absl::Status status = ReplayAccesses(step, plan);
          EXPECT_TRUE(status.ok()) << network.name << " " << rows << " rows: " << status;
        }
      }
    }
  }
}

// The kernels write a part of a row's result before they have read all of the row, so a result of
// the same size must not lie on it either: all experts chosen, as many weights as logits.
TEST(DecoderActivationsTest, WhatIsReadAgainIsNotWrittenOver) {
  for (const Network& network : Networks()) {
    ModelConfig config = Config(network);
    if (config.num_experts == 0) continue;
    config.top_k = config.num_experts;
    for (const int64_t rows : {1, 24}) {
      const DecoderActivations tensors =
          DescribeActivations(config, Sizes(DType::kFloat32, rows, 16));
      const ActivationPlan plan = PlanActivations(tensors.graph);
      const auto apart = [&](int32_t a, int32_t b) {
        const auto end = [&](int32_t tensor) {
          return plan.offsets[tensor] + tensors.graph.tensors[tensor].bytes;
        };
        return end(a) <= plan.offsets[b] || end(b) <= plan.offsets[a];
      };
      EXPECT_TRUE(apart(tensors.gate_logits, tensors.gate_experts)) << network.name;
      EXPECT_TRUE(apart(tensors.gate_logits, tensors.gate_weights)) << network.name;
      EXPECT_TRUE(apart(tensors.qkv, tensors.q)) << network.name;
    }
  }
}

// The plan's reason to be: attention's wide tensors exist for some rows only.
TEST(DecoderActivationsTest, CuttingAttentionLowersThePeak) {
  for (const Network& network : Networks()) {
    const ModelConfig config = Config(network);
    const ActivationGraph cut =
        DescribeActivations(config, Sizes(DType::kBFloat16, 1024, 128)).graph;
    const ActivationGraph whole =
        DescribeActivations(config, Sizes(DType::kBFloat16, 1024, 1024)).graph;
    EXPECT_LT(PlanActivations(cut).peak_bytes, GreedyPlan(whole).peak_bytes) << network.name;
    EXPECT_LE(PlanActivations(whole).peak_bytes, GreedyPlan(whole).peak_bytes) << network.name;
  }
}

// A tensor that is missing from an operator would look free while it is in use.
TEST(DecoderActivationsTest, TensorsLiveAsLongAsTheyAreUsed) {
  const ModelConfig config = Config(Networks()[1]);  // routed, shared and dense
  const DecoderActivations a = DescribeActivations(config, Sizes(DType::kFloat32, 24, 16));
  const std::vector<Lifetime> lives = Lifetimes(a.graph);
  const auto operator_index = [&](const std::string& name) {
    const auto& all = a.graph.operators;
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const auto& op) { return op.name == name; });
    EXPECT_NE(found, all.end()) << name;
    return static_cast<int32_t>(found - all.begin());
  };
  const auto lives_from = [&](int32_t tensor, const char* first, const char* last) {
    EXPECT_EQ(lives[tensor].first, operator_index(first)) << a.graph.tensors[tensor].name;
    EXPECT_EQ(lives[tensor].last, operator_index(last)) << a.graph.tensors[tensor].name;
  };
  lives_from(a.residual, "embedding", "final norm");
  lives_from(a.attention_input, "input norm", "qkv projection");
  lives_from(a.attention, "attention", "attention output");
  lives_from(a.ffn_input, "post-attention norm", "dense MLP");
  lives_from(a.expert_weights, "group by expert", "routed experts");
  lives_from(a.ffn_workspace, "routed experts", "routed experts");
  lives_from(a.mlp_workspace, "shared expert", "dense MLP");
  lives_from(a.shared_weights, "shared expert's gate", "shared expert");
  for (const int32_t tensor :
       {a.every_row, a.ones, a.kv_slots, a.sequences, a.attention_sequences}) {
    lives_from(tensor, "embedding", "head");
  }
}

}  // namespace
}  // namespace moesaic
