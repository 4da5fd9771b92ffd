#include "model/family.h"

#include <string>

#include "base/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/test_files.h"

namespace moesaic {
namespace {

ModelConfig TwoLayers() {
  ModelConfig config;
  config.num_layers = 2;
  config.layer_is_sparse = {true, true};
  return config;
}

ExpertLayout LayoutOf(std::string_view architecture,
                      const std::vector<std::string>& tensors,
                      const ModelConfig& config = TwoLayers()) {
  const TempFolder folder;
  std::string header = "{";
  for (const std::string& name : tensors) {
    header += StrCat(header.size() == 1 ? "" : ",", "\"", name,
                     "\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}");
  }
  folder.Write("model.safetensors", SafetensorsBytes(header + "}", ""));
  const auto checkpoint = Checkpoint::Open(folder.path());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return FindExpertLayout(*FindFamily(architecture), config, **checkpoint);
}

TEST(Family, IsFoundByArchitecture) {
  EXPECT_EQ(FindFamily("GptForCausalLM"), nullptr);
  for (const Family& family : Families()) {
    EXPECT_EQ(FindFamily(family.architecture), &family);
    EXPECT_NE(family.expert_units_field, nullptr);
  }
}

TEST(FindExpertLayout, QwenPerExpertAndFused) {
  const ExpertLayout separate =
      LayoutOf("Qwen3MoeForCausalLM",
               {"model.layers.0.mlp.gate.weight", "model.layers.0.mlp.experts.0.up_proj.weight"});
  EXPECT_EQ(separate.moe_block, "mlp");
  EXPECT_FALSE(separate.fused);
  const ExpertLayout fused =
      LayoutOf("Qwen3MoeForCausalLM",
               {"model.layers.0.mlp.gate.weight", "model.layers.0.mlp.experts.gate_up_proj"});
  EXPECT_EQ(fused.moe_block, "mlp");
  EXPECT_TRUE(fused.fused);
}

TEST(FindExpertLayout, MixtralPerExpertAndFused) {
  const ExpertLayout separate =
      LayoutOf("MixtralForCausalLM", {"model.layers.0.block_sparse_moe.gate.weight",
                                      "model.layers.0.block_sparse_moe.experts.0.w1.weight"});
  EXPECT_EQ(separate.moe_block, "block_sparse_moe");
  EXPECT_FALSE(separate.fused);
  const ExpertLayout fused =
      LayoutOf("MixtralForCausalLM",
               {"model.layers.0.mlp.gate.weight", "model.layers.0.mlp.experts.gate_up_proj"});
  EXPECT_EQ(fused.moe_block, "mlp");
  EXPECT_TRUE(fused.fused);
}

TEST(FindExpertLayout, LooksAtTheFirstSparseLayer) {
  ModelConfig config = TwoLayers();
  config.layer_is_sparse = {false, true};
  EXPECT_TRUE(LayoutOf("Qwen2MoeForCausalLM",
                       {"model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.gate.weight",
                        "model.layers.1.mlp.experts.gate_up_proj"},
                       config)
                  .fused);
}

TEST(LayerTensorNames, EveryOptionalTensor) {
  ModelConfig config = TwoLayers();
  config.qkv_bias = true;
  config.output_bias = true;
  config.qk_norm = kernels::QkNorm::kPerHead;
  config.shared_expert_units = 4;
  const LayerTensors names = LayerTensorNames(config, {.moe_block = "mlp", .fused = true}, 1);
  EXPECT_EQ(names.input_norm, "model.layers.1.input_layernorm.weight");
  EXPECT_EQ(names.q_weight, "model.layers.1.self_attn.q_proj.weight");
  EXPECT_EQ(names.k_bias, "model.layers.1.self_attn.k_proj.bias");
  EXPECT_EQ(names.q_norm, "model.layers.1.self_attn.q_norm.weight");
  EXPECT_EQ(names.k_norm, "model.layers.1.self_attn.k_norm.weight");
  EXPECT_EQ(names.o_weight, "model.layers.1.self_attn.o_proj.weight");
  EXPECT_EQ(names.o_bias, "model.layers.1.self_attn.o_proj.bias");
  EXPECT_EQ(names.post_attention_norm, "model.layers.1.post_attention_layernorm.weight");
  EXPECT_EQ(names.gate, "model.layers.1.mlp.gate.weight");
  EXPECT_EQ(names.fused_gate_up, "model.layers.1.mlp.experts.gate_up_proj");
  EXPECT_EQ(names.fused_down, "model.layers.1.mlp.experts.down_proj");
  EXPECT_EQ(names.shared_expert.up, "model.layers.1.mlp.shared_expert.up_proj.weight");
  EXPECT_EQ(names.shared_expert_gate, "model.layers.1.mlp.shared_expert_gate.weight");
  EXPECT_EQ(names.dense.gate, "");
}

TEST(LayerTensorNames, PlainAndDenseLayers) {
  ModelConfig config = TwoLayers();
  config.shared_expert_units = 4;
  config.layer_is_sparse[1] = false;
  const LayerTensors sparse = LayerTensorNames(config, {.moe_block = "block_sparse_moe"}, 0);
  EXPECT_EQ(sparse.gate, "model.layers.0.block_sparse_moe.gate.weight");
  EXPECT_EQ(sparse.q_bias + sparse.o_bias + sparse.q_norm + sparse.fused_gate_up, "");
  const LayerTensors dense = LayerTensorNames(config, {.moe_block = "mlp"}, 1);
  EXPECT_EQ(dense.dense.gate, "model.layers.1.mlp.gate_proj.weight");
  EXPECT_EQ(dense.dense.down, "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(dense.gate + dense.shared_expert.up + dense.shared_expert_gate, "");
}

TEST(ExpertTensorNames, PerFamilySpelling) {
  const MlpTensors qwen =
      ExpertTensorNames(*FindFamily("Qwen2MoeForCausalLM"), {.moe_block = "mlp"}, 2, 11);
  EXPECT_EQ(qwen.gate, "model.layers.2.mlp.experts.11.gate_proj.weight");
  EXPECT_EQ(qwen.up, "model.layers.2.mlp.experts.11.up_proj.weight");
  EXPECT_EQ(qwen.down, "model.layers.2.mlp.experts.11.down_proj.weight");
  const MlpTensors mixtral = ExpertTensorNames(*FindFamily("MixtralForCausalLM"),
                                               {.moe_block = "block_sparse_moe"}, 2, 11);
  EXPECT_EQ(mixtral.gate, "model.layers.2.block_sparse_moe.experts.11.w1.weight");
  EXPECT_EQ(mixtral.up, "model.layers.2.block_sparse_moe.experts.11.w3.weight");
  EXPECT_EQ(mixtral.down, "model.layers.2.block_sparse_moe.experts.11.w2.weight");
}

}  // namespace
}  // namespace moesaic
