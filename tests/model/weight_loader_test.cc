// Loading through Model::Load: also covers model, weight_plan, weight_source and weights.

#include "model/weight_loader.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/weight_plan.h"
#include "tests/model/checkpoint_writer.h"
#include "tests/model/model_runner.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

const std::vector<int32_t> kPrompt = {1, 5, 69, 0, 33, 12, 12, 7, 40, 3};

ModelRunner::Options OptionsFor(const TempFolder& folder) {
  ModelRunner::Options options;
  options.model.path = folder.path();
  options.model.max_batch_tokens = 64;
  options.kv_blocks = 8;
  return options;
}

absl::StatusOr<std::vector<float>> LogitsOf(const TestTensors& tensors,
                                            DTypeChoice dtype = DTypeChoice::kAuto,
                                            int header_padding = 0,
                                            const Json& config = TinyQwen2Config()) {
  const TempFolder folder;
  folder.Write("config.json", config.dump());
  WriteSafetensors(folder, tensors, header_padding);
  ModelRunner::Options options = OptionsFor(folder);
  options.model.dtype = dtype;
  MOESAIC_ASSIGN_OR_RETURN(const auto runner, ModelRunner::Load(options));
  return runner->Logits(kPrompt);
}

absl::Status LoadError(const TestTensors& tensors) { return LogitsOf(tensors).status(); }

TEST(WeightLoaderTest, BothExpertLayoutsGiveTheSameBits) {
  const auto separate = LogitsOf(TinyQwen2Tensors(DType::kFloat32, /*fused=*/false));
  const auto fused = LogitsOf(TinyQwen2Tensors(DType::kFloat32, /*fused=*/true));
  ASSERT_TRUE(separate.ok()) << separate.status();
  ASSERT_TRUE(fused.ok()) << fused.status();
  EXPECT_EQ(*separate, *fused);
}

TEST(WeightLoaderTest, EveryStoredTypeGivesTheSameFloat32Model) {
  const auto float32 = LogitsOf(TinyQwen2Tensors(DType::kFloat32, false), DTypeChoice::kFloat32);
  ASSERT_TRUE(float32.ok()) << float32.status();
  for (const DType stored : {DType::kFloat16, DType::kBFloat16}) {
    const auto other = LogitsOf(TinyQwen2Tensors(stored, false), DTypeChoice::kFloat32);
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_EQ(*float32, *other) << DTypeName(stored);
  }
}

TEST(WeightLoaderTest, DataAtAnyAddressGivesTheSameBits) {
  for (const DType stored : {DType::kFloat32, DType::kBFloat16}) {
    const TestTensors tensors = TinyQwen2Tensors(stored, true);
    const auto first = LogitsOf(tensors);
    ASSERT_TRUE(first.ok()) << first.status();
    for (int padding = 1; padding < 4; ++padding) {
      const auto shifted = LogitsOf(tensors, DTypeChoice::kAuto, padding);
      ASSERT_TRUE(shifted.ok()) << shifted.status();
      EXPECT_EQ(*first, *shifted) << padding;
    }
  }
}

TEST(WeightLoaderTest, AutoKeepsBFloat16AndWidensFloat16) {
  EXPECT_EQ(ResolveDType(DTypeChoice::kAuto, DType::kBFloat16), DType::kBFloat16);
  EXPECT_EQ(ResolveDType(DTypeChoice::kAuto, DType::kFloat32), DType::kFloat32);
  EXPECT_EQ(ResolveDType(DTypeChoice::kAuto, DType::kFloat16), DType::kFloat32);
  EXPECT_EQ(ResolveDType(DTypeChoice::kBFloat16, DType::kFloat32), DType::kBFloat16);
  EXPECT_EQ(ResolveDType(DTypeChoice::kFloat32, DType::kBFloat16), DType::kFloat32);
}

TEST(WeightLoaderTest, RoundingToBFloat16ChangesTheModelAndSaysSo) {
  TestTensors tensors = TinyQwen2Tensors(DType::kFloat32, false);
  const float fine = 0.1001f;  // between two bfloat16 numbers
  std::memcpy(tensors["lm_head.weight"].bytes.data(), &fine, sizeof(fine));
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  const auto rounded = LogitsOf(tensors, DTypeChoice::kBFloat16);
  const std::string log =
      testing::internal::GetCapturedStderr() + testing::internal::GetCapturedStdout();
  ASSERT_TRUE(rounded.ok()) << rounded.status();
  EXPECT_THAT(log, HasSubstr("rounded to bfloat16"));
  EXPECT_THAT(log, HasSubstr("packing weights"));
}

TEST(WeightLoaderTest, TiedEmbeddingsNeedNoHead) {
  TestTensors tensors = TinyQwen2Tensors(DType::kFloat32, false);
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"];
  const auto untied = LogitsOf(tensors);
  tensors.erase("lm_head.weight");
  Json config = TinyQwen2Config();
  config["tie_word_embeddings"] = true;
  const auto tied = LogitsOf(tensors, DTypeChoice::kAuto, 0, config);
  ASSERT_TRUE(untied.ok()) << untied.status();
  ASSERT_TRUE(tied.ok()) << tied.status();
  EXPECT_EQ(*untied, *tied);
}

TEST(WeightLoaderTest, PackedBytesAreWhatWasPlanned) {
  const TempFolder folder;
  folder.Write("config.json", TinyQwen2Config().dump());
  WriteSafetensors(folder, TinyQwen2Tensors(DType::kFloat32, false));
  const auto config = LoadModelConfig(folder.path());
  ASSERT_TRUE(config.ok()) << config.status();
  const kernels::KernelTable& kernels = kernels::CpuKernels(DetectIsa());
  const ModelWeights plan = PlanWeights(*config, DType::kFloat32, kernels);
  const auto planned = PlannedBytes(plan, *config, kernels);
  ASSERT_TRUE(planned.ok());
  ThreadPool pool(2);
  const auto loaded = LoadWeights({.path = folder.path()}, *config, kernels, {.pool = &pool});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->bytes(), *planned);
}

TEST(WeightLoaderTest, MissingTensorIsNamed) {
  for (const char* name :
       {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
        "model.layers.0.input_layernorm.weight", "model.layers.1.self_attn.k_proj.bias",
        "model.layers.0.mlp.experts.4.down_proj.weight", "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.mlp.shared_expert_gate.weight"}) {
    TestTensors tensors = TinyQwen2Tensors(DType::kFloat32, false);
    ASSERT_EQ(tensors.erase(name), 1u) << name;
    const absl::Status status = LoadError(tensors);
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    EXPECT_THAT(std::string(status.message()), HasSubstr("/model.safetensors"));
  }
}

TEST(WeightLoaderTest, UnusedTensorsAreCountedInOneLine) {
  TestTensors tensors = TinyQwen2Tensors(DType::kFloat32, false);
  const auto log_of = [&] {
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    EXPECT_TRUE(LogitsOf(tensors).ok());
    return testing::internal::GetCapturedStderr() + testing::internal::GetCapturedStdout();
  };
  EXPECT_THAT(log_of(), testing::Not(HasSubstr("not used")));
  tensors["model.layers.7.extra"] = MakeTensor(DType::kFloat32, {2}, 1);
  tensors["model.extra"] = MakeTensor(DType::kFloat32, {2}, 1);
  EXPECT_THAT(log_of(),
              HasSubstr("2 tensors of the checkpoint are not used, the first is model.extra"));
}

TEST(WeightLoaderTest, WrongShapeIsNamedWithBothShapes) {
  TestTensors tensors = TinyQwen2Tensors(DType::kFloat32, false);
  tensors["model.layers.0.mlp.experts.2.up_proj.weight"] = MakeTensor(DType::kFloat32, {41, 32}, 1);
  const absl::Status status = LoadError(tensors);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("model.layers.0.mlp.experts.2.up_proj.weight"));
  EXPECT_THAT(message, HasSubstr("/model.safetensors"));
  EXPECT_THAT(message, HasSubstr("[41, 32]"));
  EXPECT_THAT(message, HasSubstr("[40, 32]"));
}

TEST(WeightLoaderTest, FusedExpertsOfAnotherShapeAreRefused) {
  TestTensors tensors = TinyQwen2Tensors(DType::kFloat32, true);
  tensors["model.layers.0.mlp.experts.down_proj"] = MakeTensor(DType::kFloat32, {4, 32, 40}, 1);
  const absl::Status status = LoadError(tensors);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("[5, 32, 40]"));
}

TEST(WeightLoaderTest, UnknownStoredTypeIsRefused) {
  TestTensors tensors = TinyQwen2Tensors(DType::kFloat32, false);
  TestTensor& tensor = tensors["model.layers.0.self_attn.o_proj.weight"];
  tensor.type = "I32";
  const absl::Status status = LoadError(tensors);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("o_proj.weight"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("I32"));
}

TEST(WeightLoaderTest, GeneratedWeightsAreReproducible) {
  const TempFolder folder;
  folder.Write("config.json", TinyQwen2Config().dump());
  ModelRunner::Options options = OptionsFor(folder);
  options.model.load_format = LoadFormat::kDummy;
  const auto logits = [&](uint64_t seed, int threads) {
    options.model.dummy_seed = seed;
    options.num_threads = threads;
    const auto runner = ModelRunner::Load(options);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *(*runner)->Logits(kPrompt);
  };
  const std::vector<float> first = logits(1, 1);
  EXPECT_EQ(first, logits(1, 2));
  EXPECT_NE(first, logits(2, 2));
  // Spread like a trained model's, neither flat nor exploded.
  for (const float logit : first) EXPECT_LT(std::abs(logit), 20.0f);
  EXPECT_GT(*std::max_element(first.begin(), first.end()), 1.0f);
}

// A damaged checkpoint may hold any bits: routing must still choose experts that exist.
TEST(ModelTest, WeightsThatAreNotNumbersAreSurvived) {
  for (const char* name : {"model.layers.0.mlp.gate.weight", "model.embed_tokens.weight"}) {
    for (const char byte : {'\x7f', '\xff'}) {
      TestTensors tensors = TinyQwen2Tensors(DType::kFloat32, false);
      std::string& bytes = tensors[name].bytes;
      std::fill(bytes.begin(), bytes.end(), byte);
      const TempFolder folder;
      folder.Write("config.json", TinyQwen2Config().dump());
      WriteSafetensors(folder, tensors);
      for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
        if (isa > DetectIsa()) continue;
        ModelRunner::Options options = OptionsFor(folder);
        options.isa = isa;
        const auto runner = ModelRunner::Load(options);
        ASSERT_TRUE(runner.ok()) << runner.status();
        const auto logits = (*runner)->Logits(kPrompt);
        ASSERT_TRUE(logits.ok()) << logits.status();
        EXPECT_EQ(logits->size(), kPrompt.size() * 70);
        const kernels::MaxResult max = kernels::CpuKernels(isa).arg_max(logits->data(), 70);
        EXPECT_GE(max.index, 0);
        EXPECT_LT(max.index, 70);
      }
    }
  }
}

TEST(ModelTest, OptionsOutOfRangeAreRefused) {
  const TempFolder folder;
  folder.Write("config.json", TinyQwen2Config().dump());
  const auto load = [&](auto change) {
    ModelRunner::Options options = OptionsFor(folder);
    options.model.load_format = LoadFormat::kDummy;
    change(options.model);
    return ModelRunner::Load(options).status();
  };
  EXPECT_TRUE(load([](ModelOptions& options) { options.max_model_len = 512; }).ok());
  for (const absl::Status& status :
       {load([](ModelOptions& options) { options.max_model_len = 513; }),
        load([](ModelOptions& options) { options.max_model_len = -1; }),
        load([](ModelOptions& options) { options.max_batch_tokens = 0; }),
        load([](ModelOptions& options) { options.max_batch_tokens = 1 << 30; }),
        load([](ModelOptions& options) { options.max_logits_rows = 0; })}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
}

TEST(WeightLoaderTest, AModelLargerThanTheMachineIsRefused) {
  const TempFolder folder;
  Json config = TinyQwen2Config();
  config["hidden_size"] = 65536;
  config["num_attention_heads"] = 512;
  config["num_key_value_heads"] = 512;
  config["num_experts"] = 4096;
  config["moe_intermediate_size"] = 1 << 20;
  config["num_hidden_layers"] = 1000;
  folder.Write("config.json", config.dump());
  ModelRunner::Options options = OptionsFor(folder);
  options.model.load_format = LoadFormat::kDummy;
  const absl::Status status = ModelRunner::Load(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST(WeightLoaderTest, TheRotaryEmbeddingCountsTowardsTheMachinesMemory) {
  ModelConfig config;
  config.architecture = "Qwen2MoeForCausalLM";
  config.vocab_size = 70;
  config.hidden_size = 32;
  config.max_positions = 1 << 30;
  // More than any machine has, but no byte of it is touched.
  config.rope_inverse_frequencies.resize(1 << 20);
  ThreadPool pool(1);
  const kernels::KernelTable& kernels = kernels::CpuKernels(DetectIsa());
  ModelOptions options;
  options.load_format = LoadFormat::kDummy;
  const absl::Status status = LoadWeights(options, config, kernels, {.pool = &pool}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_position_embeddings"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--max-model-len"));
  // Only what is served counts.
  options.max_model_len = 16;
  EXPECT_NE(LoadWeights(options, config, kernels, {.pool = &pool}).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace moesaic
