#include "model/model_config.h"

#include <string>

#include "checkpoint/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/test_files.h"

namespace moesaic {
namespace {

using kernels::Activation;
using kernels::QkNorm;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The smallest config of a family, changed by `patch` (RFC 7396: null removes a field).
std::string Config(std::string_view architecture, std::string_view patch = "{}") {
  Json config = *ParseJson(
      R"({"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 16,
          "dtype": "bfloat16"})",
      "t");
  config["architectures"] = Json::array({std::string(architecture)});
  config.merge_patch(*ParseJson(patch, "t"));
  return config.dump();
}

ModelConfig Parse(std::string_view architecture,
                  std::string_view patch = "{}",
                  std::string_view generation = "{}") {
  const auto config = ParseModelConfig(Config(architecture, patch), generation);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ModelConfig();
}

constexpr char kQwen3[] = "Qwen3MoeForCausalLM";
constexpr char kQwen2[] = "Qwen2MoeForCausalLM";
constexpr char kMixtral[] = "MixtralForCausalLM";
constexpr char kOlmoe[] = "OlmoeForCausalLM";

TEST(ModelConfig, Qwen3Defaults) {
  const ModelConfig config = Parse(kQwen3);
  EXPECT_EQ(config.architecture, kQwen3);
  EXPECT_EQ(config.checkpoint_dtype, DType::kBFloat16);
  EXPECT_EQ(config.vocab_size, 100);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.num_layers, 4);
  EXPECT_EQ(config.num_heads, 16);
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.rotary_dim, 4);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_FALSE(config.output_bias);
  EXPECT_EQ(config.qk_norm, QkNorm::kPerHead);
  EXPECT_EQ(config.norm_eps, 1e-6f);
  EXPECT_FALSE(config.tie_embeddings);
  EXPECT_EQ(config.max_positions, 32768);
  EXPECT_THAT(config.sliding_window, ElementsAre(0, 0, 0, 0));
  EXPECT_EQ(config.activation, Activation::kSilu);
  EXPECT_EQ(config.num_experts, 128);
  EXPECT_EQ(config.top_k, 8);
  EXPECT_EQ(config.expert_units, 768);
  EXPECT_FALSE(config.renormalize_gate);
  EXPECT_EQ(config.shared_expert_units, 0);
  EXPECT_THAT(config.layer_is_sparse, ElementsAre(true, true, true, true));
  EXPECT_EQ(config.rope_inverse_frequencies.size(), 2u);
  EXPECT_THAT(config.eos_token_ids, IsEmpty());
}

TEST(ModelConfig, Qwen2Defaults) {
  const ModelConfig config = Parse(kQwen2);
  EXPECT_EQ(config.num_kv_heads, 16);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.output_bias);
  EXPECT_EQ(config.qk_norm, QkNorm::kNone);
  EXPECT_EQ(config.num_experts, 60);
  EXPECT_EQ(config.top_k, 4);
  EXPECT_EQ(config.expert_units, 1408);
  EXPECT_EQ(config.shared_expert_units, 5632);
  EXPECT_FALSE(config.renormalize_gate);
}

TEST(ModelConfig, MixtralDefaults) {
  const ModelConfig config = Parse(kMixtral);
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.norm_eps, 1e-5f);
  EXPECT_EQ(config.max_positions, 131072);
  EXPECT_EQ(config.num_experts, 8);
  EXPECT_EQ(config.top_k, 2);
  EXPECT_EQ(config.expert_units, 14336);
  EXPECT_TRUE(config.renormalize_gate);
  EXPECT_FLOAT_EQ(config.rope_inverse_frequencies[1], 1e-3f) << "its default theta is 1e6";
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config.bos_token_id, 1);
}

TEST(ModelConfig, OlmoeDefaults) {
  const ModelConfig config = Parse(kOlmoe);
  EXPECT_EQ(config.num_kv_heads, 16);
  EXPECT_EQ(config.qk_norm, QkNorm::kAllHeads);
  EXPECT_EQ(config.clip_qkv, 0.0f);
  EXPECT_EQ(config.num_experts, 64);
  EXPECT_EQ(config.top_k, 8);
  EXPECT_EQ(config.expert_units, 2048);
  EXPECT_FALSE(config.renormalize_gate);
  EXPECT_THAT(config.eos_token_ids, IsEmpty()) << "50279 is not in this vocabulary";
  EXPECT_EQ(config.pad_token_id, 1);
}

TEST(ModelConfig, FieldsAreRead) {
  const ModelConfig config = Parse(kQwen3, R"({"head_dim": 32, "num_key_value_heads": 2,
      "attention_bias": true, "tie_word_embeddings": true, "norm_topk_prob": true,
      "num_local_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 48,
      "intermediate_size": 99, "rms_norm_eps": 1e-4, "max_position_embeddings": 77,
      "hidden_act": "gelu_pytorch_tanh", "bos_token_id": 5, "pad_token_id": 6})");
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_TRUE(config.output_bias);
  EXPECT_TRUE(config.tie_embeddings);
  EXPECT_TRUE(config.renormalize_gate);
  EXPECT_EQ(config.num_experts, 6);
  EXPECT_EQ(config.top_k, 3);
  EXPECT_EQ(config.expert_units, 48);
  EXPECT_EQ(config.norm_eps, 1e-4f);
  EXPECT_EQ(config.max_positions, 77);
  EXPECT_EQ(config.activation, Activation::kGeluTanh);
  EXPECT_EQ(config.bos_token_id, 5);
  EXPECT_EQ(config.pad_token_id, 6);
}

TEST(ModelConfig, BothDTypeSpellings) {
  EXPECT_EQ(Parse(kQwen3, R"({"dtype": null, "torch_dtype": "float16"})").checkpoint_dtype,
            DType::kFloat16);
  EXPECT_EQ(Parse(kQwen3, R"({"dtype": "float32", "torch_dtype": "float16"})").checkpoint_dtype,
            DType::kFloat32);
}

TEST(ModelConfig, OlmoeClip) { EXPECT_EQ(Parse(kOlmoe, R"({"clip_qkv": 8})").clip_qkv, 8.0f); }

TEST(ModelConfig, DenseLayers) {
  const ModelConfig step = Parse(kQwen2, R"({"decoder_sparse_step": 2, "intermediate_size": 99})");
  EXPECT_THAT(step.layer_is_sparse, ElementsAre(false, true, false, true));
  EXPECT_EQ(step.dense_units, 99);
  const ModelConfig listed = Parse(kQwen3, R"({"mlp_only_layers": [0, 3, 9, -1]})");
  EXPECT_THAT(listed.layer_is_sparse, ElementsAre(false, true, true, false));
  EXPECT_EQ(listed.dense_units, 6144);
}

TEST(ModelConfig, SlidingWindows) {
  EXPECT_THAT(Parse(kMixtral, R"({"sliding_window": 7})").sliding_window, Each(7));
  EXPECT_THAT(Parse(kQwen3, R"({"sliding_window": 7})").sliding_window, Each(0));
  EXPECT_THAT(Parse(kQwen3, R"({"sliding_window": 7, "use_sliding_window": true})").sliding_window,
              Each(7));
  EXPECT_THAT(Parse(kQwen3, R"({"use_sliding_window": true})").sliding_window, Each(4096));
  EXPECT_THAT(Parse(kQwen2, R"({"sliding_window": 7, "use_sliding_window": true})").sliding_window,
              ElementsAre(7, 0, 7, 0));
  EXPECT_THAT(Parse(kQwen2, R"({"sliding_window": 7, "use_sliding_window": true,
                                "max_window_layers": 1})")
                  .sliding_window,
              ElementsAre(7, 0, 0, 0));
  EXPECT_THAT(Parse(kQwen2, R"({"sliding_window": 7, "use_sliding_window": true, "layer_types":
                                ["full_attention", "sliding_attention", "sliding_attention",
                                 "full_attention"]})")
                  .sliding_window,
              ElementsAre(0, 7, 7, 0));
  const auto off = ParseModelConfig(
      R"({"architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 8, "hidden_size": 8,
          "num_hidden_layers": 1, "num_attention_heads": 4, "use_sliding_window": true,
          "sliding_window": null})");
  ASSERT_TRUE(off.ok()) << off.status();
  EXPECT_THAT(off->sliding_window, ElementsAre(0));
}

TEST(ModelConfig, EndTokens) {
  EXPECT_THAT(Parse(kQwen3, R"({"eos_token_id": 3})").eos_token_ids, ElementsAre(3));
  EXPECT_THAT(Parse(kQwen3, R"({"eos_token_id": [3, 100, -1, 4]})").eos_token_ids,
              ElementsAre(3, 4));
  EXPECT_THAT(Parse(kQwen3, R"({"eos_token_id": 3})", R"({"eos_token_id": [5, 6]})").eos_token_ids,
              ElementsAre(5, 6));
  EXPECT_THAT(Parse(kQwen3, R"({"eos_token_id": 3})", R"({"eos_token_id": null})").eos_token_ids,
              ElementsAre(3));
}

struct BadConfig {
  const char* architecture;
  const char* patch;
  absl::StatusCode code;
  const char* problem;  // part of the message: the field, the value, the bound
};

class BadModelConfig : public testing::TestWithParam<BadConfig> {};

TEST_P(BadModelConfig, IsRefused) {
  const auto config = ParseModelConfig(Config(GetParam().architecture, GetParam().patch));
  EXPECT_EQ(config.status().code(), GetParam().code) << config.status();
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(GetParam().problem));
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("config.json"));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    Fields,
    BadModelConfig,
    testing::Values(
        BadConfig{"GptForCausalLM", "{}", kInvalid, "unknown architecture \"GptForCausalLM\""},
        BadConfig{kQwen3, R"({"architectures": null})", kInvalid, "architectures"},
        BadConfig{kQwen3, R"({"architectures": []})", kInvalid, "architectures"},
        BadConfig{kQwen3, R"({"architectures": [1]})", kInvalid, "architectures"},
        BadConfig{kQwen3, R"({"vocab_size": null})", kInvalid, "\"vocab_size\" is missing"},
        BadConfig{kQwen3, R"({"hidden_size": null})", kInvalid, "\"hidden_size\" is missing"},
        BadConfig{kQwen3, R"({"hidden_size": 1e9})", kInvalid, "hidden_size"},
        BadConfig{kQwen3, R"({"hidden_size": 1000000})", kInvalid,
                  "\"hidden_size\" is 1000000, expected an integer in [1, 65536]"},
        BadConfig{kQwen3, R"({"hidden_size": -1})", kInvalid, "hidden_size"},
        BadConfig{kQwen3, R"({"hidden_size": "64"})", kInvalid, "hidden_size"},
        BadConfig{kQwen3, R"({"hidden_size": 8})", kInvalid, "head_dim"},
        BadConfig{kQwen3, R"({"num_hidden_layers": 0})", kInvalid, "num_hidden_layers"},
        BadConfig{kQwen3, R"({"num_hidden_layers": 100000000})", kInvalid, "num_hidden_layers"},
        BadConfig{kQwen3, R"({"num_attention_heads": 0})", kInvalid, "num_attention_heads"},
        BadConfig{kQwen3, R"({"num_key_value_heads": 3})", kInvalid, "num_key_value_heads"},
        BadConfig{kQwen3, R"({"num_key_value_heads": 32})", kInvalid, "num_key_value_heads"},
        BadConfig{kQwen3, R"({"num_attention_heads": 2})", kInvalid, "num_key_value_heads"},
        BadConfig{kQwen3, R"({"head_dim": 7})", kInvalid, "head_dim"},
        BadConfig{kQwen3, R"({"head_dim": 100000})", kInvalid, "head_dim"},
        BadConfig{kQwen3, R"({"max_position_embeddings": 1000000000000})", kInvalid,
                  "max_position_embeddings"},
        BadConfig{kQwen3, R"({"rms_norm_eps": 0})", kInvalid, "rms_norm_eps"},
        BadConfig{kQwen3, R"({"num_experts": 0})", kInvalid, "num_experts"},
        BadConfig{kQwen3, R"({"num_experts": 1000000})", kInvalid, "num_experts"},
        BadConfig{kQwen3, R"({"num_experts": 4, "num_experts_per_tok": 5})", kInvalid,
                  "num_experts_per_tok"},
        BadConfig{kQwen3, R"({"num_experts": 4})", kInvalid, "num_experts_per_tok"},
        BadConfig{kQwen3, R"({"moe_intermediate_size": 100000000})", kInvalid,
                  "moe_intermediate_size"},
        BadConfig{kQwen3, R"({"norm_topk_prob": 1})", kInvalid, "norm_topk_prob"},
        BadConfig{kQwen3, R"({"decoder_sparse_step": 0})", kInvalid, "decoder_sparse_step"},
        BadConfig{kQwen3, R"({"mlp_only_layers": 1})", kInvalid, "mlp_only_layers"},
        BadConfig{kQwen3, R"({"mlp_only_layers": [0.5]})", kInvalid, "mlp_only_layers"},
        BadConfig{kQwen3, R"({"layer_types": ["full_attention"]})", kInvalid,
                  "\"layer_types\" is a list of 1, expected a name for each of the "
                  "num_hidden_layers 4"},
        BadConfig{kMixtral, R"({"layer_types": "full_attention"})", kInvalid, "layer_types"},
        BadConfig{kQwen3, R"({"eos_token_id": "x"})", kInvalid, "eos_token_id"},
        BadConfig{kQwen3, R"({"rope_theta": 0})", kInvalid, "rope_theta"},
        BadConfig{kQwen3, R"({"dtype": "int8"})", kUnimplemented, "dtype"},
        BadConfig{kQwen3, R"({"hidden_act": "mish"})", kUnimplemented, "hidden_act"},
        BadConfig{kQwen3, R"({"quantization_config": {"bits": 4}})", kUnimplemented,
                  "quantization_config"},
        BadConfig{kQwen2, R"({"shared_expert_intermediate_size": 0})", kInvalid,
                  "shared_expert_intermediate_size"},
        BadConfig{kQwen2, R"({"layer_types": ["full_attention"]})", kInvalid, "layer_types"},
        BadConfig{kQwen2, R"({"layer_types": [1, 2, 3, 4]})", kUnimplemented, "layer_types"},
        BadConfig{kQwen2, R"({"layer_types": ["full_attention", "sliding_attention",
                              "full_attention", "full_attention"]})",
                  kInvalid, "use_sliding_window"},
        BadConfig{kMixtral, R"({"sliding_window": -4})", kInvalid, "sliding_window"},
        BadConfig{kOlmoe, R"({"sliding_window": 4})", kUnimplemented, "sliding_window"},
        BadConfig{kOlmoe, R"({"clip_qkv": 0})", kInvalid, "clip_qkv"}));

TEST(ModelConfig, NotAnObject) {
  EXPECT_TRUE(absl::IsInvalidArgument(ParseModelConfig("[]").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ParseModelConfig("").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ParseModelConfig(Config(kQwen3), "[]").status()));
}

TEST(LoadModelConfig, ReadsTheFolder) {
  const TempFolder folder;
  EXPECT_TRUE(absl::IsNotFound(LoadModelConfig(folder.path()).status()));
  folder.Write("config.json", Config(kQwen3, R"({"eos_token_id": 3})"));
  EXPECT_THAT(LoadModelConfig(folder.path())->eos_token_ids, ElementsAre(3));
  folder.Write("generation_config.json", R"({"eos_token_id": [4, 5]})");
  EXPECT_THAT(LoadModelConfig(folder.path())->eos_token_ids, ElementsAre(4, 5));
  folder.Write("generation_config.json", "{");
  EXPECT_THAT(std::string(LoadModelConfig(folder.path()).status().message()),
              HasSubstr("generation_config.json"));
}

}  // namespace
}  // namespace moesaic
