// Peak memory of loading, file pages included: the packed model and little more. The model here is
// small, so the bound is tighter than the one that is promised (1.15 x packed + 512 MiB);
// scripts/check_load_memory.sh runs the same test on a larger one.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/model/checkpoint_writer.h"
#include "tests/model/model_runner.h"

namespace moesaic {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kHidden = 1024;
constexpr int64_t kUnits = 384;
constexpr int64_t kExperts = 32;
constexpr int64_t kVocab = 4096;
constexpr int64_t kLayerBytes = kExperts * 3 * kHidden * kUnits * 2;

Json Config(int64_t num_layers) {
  return {{"architectures", {"Qwen3MoeForCausalLM"}},
          {"model_type", "qwen3_moe"},
          {"vocab_size", kVocab},
          {"hidden_size", kHidden},
          {"num_hidden_layers", num_layers},
          {"num_attention_heads", 16},
          {"num_key_value_heads", 4},
          {"head_dim", 64},
          {"max_position_embeddings", 512},
          {"num_experts", kExperts},
          {"num_experts_per_tok", 8},
          {"moe_intermediate_size", kUnits},
          {"norm_topk_prob", true},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"}};
}

std::vector<std::pair<std::string, std::vector<int64_t>>> Tensors(int64_t num_layers, bool fused) {
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors = {
      {"model.embed_tokens.weight", {kVocab, kHidden}},
      {"model.norm.weight", {kHidden}},
      {"lm_head.weight", {kVocab, kHidden}}};
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const std::string prefix = StrCat("model.layers.", layer, ".");
    const std::string attention = prefix + "self_attn.";
    tensors.insert(tensors.end(), {{prefix + "input_layernorm.weight", {kHidden}},
                                   {prefix + "post_attention_layernorm.weight", {kHidden}},
                                   {attention + "q_proj.weight", {1024, kHidden}},
                                   {attention + "k_proj.weight", {256, kHidden}},
                                   {attention + "v_proj.weight", {256, kHidden}},
                                   {attention + "o_proj.weight", {kHidden, 1024}},
                                   {attention + "q_norm.weight", {64}},
                                   {attention + "k_norm.weight", {64}},
                                   {prefix + "mlp.gate.weight", {kExperts, kHidden}}});
    if (fused) {
      tensors.push_back({prefix + "mlp.experts.gate_up_proj", {kExperts, 2 * kUnits, kHidden}});
      tensors.push_back({prefix + "mlp.experts.down_proj", {kExperts, kHidden, kUnits}});
      continue;
    }
    for (int64_t expert = 0; expert < kExperts; ++expert) {
      const std::string name = StrCat(prefix, "mlp.experts.", expert, ".");
      tensors.push_back({name + "gate_proj.weight", {kUnits, kHidden}});
      tensors.push_back({name + "up_proj.weight", {kUnits, kHidden}});
      tensors.push_back({name + "down_proj.weight", {kHidden, kUnits}});
    }
  }
  return tensors;
}

void WriteCheckpoint(const TempFolder& folder, int64_t num_layers, bool fused) {
  folder.Write("config.json", Config(num_layers).dump());
  Json header = Json::object();
  int64_t offset = 0;
  for (const auto& [name, shape] : Tensors(num_layers, fused)) {
    int64_t bytes = 2;
    for (const int64_t size : shape) bytes *= size;
    header[name] = {
        {"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::ofstream file(folder.path() / "model.safetensors", std::ios::binary);
  file << SafetensorsBytes(header.dump(), "");
  std::mt19937_64 random(1);
  std::string chunk(kMiB, '\0');
  for (size_t i = 0; i < chunk.size(); i += 8) {
    const uint64_t bits = random();
    std::memcpy(&chunk[i], &bits, 8);
  }
  for (int64_t written = 0; written < offset; written += kMiB) {
    file.write(chunk.data(), std::min(kMiB, offset - written));
  }
}

int64_t PeakMemoryBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::atoll(line.c_str() + 6) * 1024;
  }
  return 0;
}

struct Measurement {
  int64_t packed_bytes = 0;
  int64_t peak_bytes = 0;
};

// In a process of its own, whose peak is the load's.
Measurement LoadInChild(const std::filesystem::path& path) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    ModelRunner::Options options;
    options.model.path = path;
    options.kv_blocks = 1;
    const auto runner = ModelRunner::Load(options);
    Measurement measured;
    if (runner.ok()) measured = {(*runner)->model().packed_bytes(), PeakMemoryBytes()};
    const bool sent = write(ends[1], &measured, sizeof(measured)) == sizeof(measured);
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  Measurement measured;
  if (read(ends[0], &measured, sizeof(measured)) != sizeof(measured)) measured = {};
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return measured;
}

class LoadMemoryTest : public testing::TestWithParam<bool> {};

TEST_P(LoadMemoryTest, PeakIsThePackedModelAndLittleMore) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)
  GTEST_SKIP() << "a sanitizer's shadow memory counts too";
#endif
  const char* requested = std::getenv("MOESAIC_LOAD_TEST_MIB");
  const int64_t wanted_bytes = (requested != nullptr ? std::atoll(requested) : 256) * kMiB;
  const TempFolder folder;
  WriteCheckpoint(folder, wanted_bytes / kLayerBytes + 1, GetParam());
  const Measurement measured = LoadInChild(folder.path());
  ASSERT_GE(measured.packed_bytes, wanted_bytes);
  std::printf("packed %ld MiB, peak %ld MiB\n", static_cast<long>(measured.packed_bytes / kMiB),
              static_cast<long>(measured.peak_bytes / kMiB));
  EXPECT_GE(measured.peak_bytes, measured.packed_bytes);
  // The mapped part of the checkpoint is at most 64 MiB, the process itself about 20.
  EXPECT_LE(measured.peak_bytes, measured.packed_bytes * 115 / 100 + 112 * kMiB);
}

INSTANTIATE_TEST_SUITE_P(Layouts, LoadMemoryTest, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "Fused" : "PerExpert");
});

}  // namespace
}  // namespace moesaic
