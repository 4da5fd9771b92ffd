#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"
#include "tests/checkpoint/test_files.h"

namespace moesaic {

// Small model folders written from C++, for tests of loading. What the numbers mean is checked
// against transformers elsewhere; here they only have to be distinct.

struct TestTensor {
  std::string type = "F32";  // as safetensors spells it: F32, F16, BF16, or one that is refused
  std::vector<int64_t> shape;
  std::string bytes = {};
};

using TestTensors = std::map<std::string, TestTensor>;

// Values that float16 and bfloat16 hold exactly, so that every type gives the same model.
inline float TestValue(uint64_t seed, int64_t index) {
  const uint64_t hash = (seed + 1) * 0x9e3779b97f4a7c15u + index * 0xbf58476d1ce4e5b9u;
  return static_cast<float>(static_cast<int64_t>((hash >> 40) % 15) - 7) / 32.0f;
}

inline TestTensor MakeTensor(DType dtype, std::vector<int64_t> shape, uint64_t seed) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  TestTensor tensor{.shape = std::move(shape)};
  for (int64_t i = 0; i < count; ++i) {
    const float value = TestValue(seed, i);
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    uint16_t half = 0;
    if (dtype == DType::kBFloat16) half = ToBFloat16(value).bits;
    // Exact for the normal numbers and zero that TestValue gives.
    if (dtype == DType::kFloat16 && value != 0.0f) {
      half =
          static_cast<uint16_t>(((bits >> 16) & 0x8000u) | ((((bits >> 23) & 0xffu) - 112) << 10) |
                                ((bits >> 13) & 0x3ffu));
    }
    if (dtype == DType::kFloat32) {
      tensor.bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else {
      tensor.bytes.append(reinterpret_cast<const char*>(&half), sizeof(half));
    }
  }
  tensor.type = dtype == DType::kFloat32 ? "F32" : dtype == DType::kFloat16 ? "F16" : "BF16";
  return tensor;
}

// `header_padding` spaces shift the data to any alignment.
inline void WriteSafetensors(const TempFolder& folder,
                             const TestTensors& tensors,
                             int header_padding = 0) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.type},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  folder.Write("model.safetensors",
               SafetensorsBytes(header.dump() + std::string(header_padding, ' '), data));
}

// A two-layer Qwen2-MoE: biases, a shared expert, a dense second layer, sizes that are no multiple
// of 64.
inline Json TinyQwen2Config() {
  return {{"architectures", {"Qwen2MoeForCausalLM"}},
          {"model_type", "qwen2_moe"},
          {"vocab_size", 70},
          {"hidden_size", 32},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 512},
          {"num_experts", 5},
          {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 40},
          {"shared_expert_intermediate_size", 72},
          {"intermediate_size", 48},
          {"mlp_only_layers", {1}},
          {"norm_topk_prob", false},
          {"tie_word_embeddings", false},
          {"rope_theta", 10000.0},
          {"torch_dtype", "float32"}};
}

inline TestTensors TinyQwen2Tensors(DType dtype, bool fused) {
  TestTensors tensors;
  uint64_t seed = 0;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    tensors[name] = MakeTensor(dtype, std::move(shape), ++seed);
  };
  const auto add_mlp = [&](const std::string& prefix, int64_t units) {
    add(prefix + ".gate_proj.weight", {units, 32});
    add(prefix + ".up_proj.weight", {units, 32});
    add(prefix + ".down_proj.weight", {32, units});
  };
  add("model.embed_tokens.weight", {70, 32});
  add("model.norm.weight", {32});
  add("lm_head.weight", {70, 32});
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = StrCat("model.layers.", layer, ".");
    add(prefix + "input_layernorm.weight", {32});
    add(prefix + "post_attention_layernorm.weight", {32});
    for (const char* name : {"q", "k", "v"}) {
      const int64_t features = *name == 'q' ? 32 : 16;
      add(StrCat(prefix, "self_attn.", name, "_proj.weight"), {features, 32});
      add(StrCat(prefix, "self_attn.", name, "_proj.bias"), {features});
    }
    add(prefix + "self_attn.o_proj.weight", {32, 32});
  }
  add_mlp("model.layers.1.mlp", 48);
  const std::string moe = "model.layers.0.mlp.";
  add(moe + "gate.weight", {5, 32});
  add(moe + "shared_expert_gate.weight", {1, 32});
  add_mlp(moe + "shared_expert", 72);
  TestTensor gate_up{.shape = {5, 80, 32}};
  TestTensor down{.shape = {5, 32, 40}};
  for (int expert = 0; expert < 5; ++expert) {
    const std::string prefix = StrCat(moe, "experts.", expert);
    add_mlp(prefix, 40);
    gate_up.type = down.type = tensors[prefix + ".gate_proj.weight"].type;
    gate_up.bytes += tensors[prefix + ".gate_proj.weight"].bytes;
    gate_up.bytes += tensors[prefix + ".up_proj.weight"].bytes;
    down.bytes += tensors[prefix + ".down_proj.weight"].bytes;
    if (!fused) continue;
    for (const char* name : {"gate", "up", "down"}) {
      tensors.erase(StrCat(prefix, ".", name, "_proj.weight"));
    }
  }
  if (fused) {
    tensors[moe + "experts.gate_up_proj"] = gate_up;
    tensors[moe + "experts.down_proj"] = down;
  }
  return tensors;
}

}  // namespace moesaic
