#include "model/model_config.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/json.h"
#include "model/family.h"
#include "model/rope.h"

namespace moesaic {
namespace {

constexpr char kWhat[] = "config.json";
constexpr char kGenerationWhat[] = "generation_config.json";

// Bounds on what a config may ask for: several times the largest public models, and small enough
// that no product of them overflows 64 bits.
constexpr int64_t kMaxVocab = int64_t{1} << 22;
constexpr int64_t kMaxHidden = int64_t{1} << 16;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxUnits = int64_t{1} << 20;
constexpr int64_t kMaxExperts = 4096;
constexpr int64_t kMaxTopK = 256;
constexpr int64_t kMaxPositions = int64_t{1} << 24;
constexpr int64_t kMaxEosTokens = 256;

absl::Status ReadInt(const Json& config,
                     const char* field,
                     int64_t min,
                     int64_t max,
                     std::optional<int64_t> fallback,
                     int32_t* value) {
  MOESAIC_ASSIGN_OR_RETURN(const int64_t read, JsonInt(config, field, kWhat, min, max, fallback));
  *value = static_cast<int32_t>(read);
  return absl::OkStatus();
}

absl::StatusOr<const Family*> ReadFamily(const Json& config) {
  std::string supported;
  for (const Family& family : Families()) {
    supported += StrCat(supported.empty() ? "" : ", ", family.architecture);
  }
  const Json* names = JsonFind(config, "architectures");
  if (names == nullptr || !names->is_array() || names->size() != 1 || !(*names)[0].is_string()) {
    return absl::InvalidArgumentError(
        StrCat(kWhat, ": \"architectures\" does not name one network, supported: ", supported));
  }
  const std::string& name = (*names)[0].get_ref<const std::string&>();
  const Family* family = FindFamily(name);
  if (family == nullptr) {
    return absl::InvalidArgumentError(StrCat(kWhat, ": unknown architecture \"",
                                             name.substr(0, 100), "\", supported: ", supported));
  }
  return family;
}

absl::StatusOr<DType> ReadDType(const Json& config) {
  const char* field = JsonFind(config, "dtype") != nullptr ? "dtype" : "torch_dtype";
  MOESAIC_ASSIGN_OR_RETURN(std::string name, JsonString(config, field, kWhat, "float32"));
  if (name.starts_with("torch.")) name = name.substr(6);
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    if (name == DTypeName(dtype)) return dtype;
  }
  return absl::UnimplementedError(StrCat(kWhat, ": \"", field, "\" is \"", name.substr(0, 100),
                                         "\", supported: float32, float16, bfloat16"));
}

absl::StatusOr<kernels::Activation> ReadActivation(const Json& config) {
  using kernels::Activation;
  constexpr std::pair<std::string_view, Activation> kNames[] = {
      {"silu", Activation::kSilu},
      {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},
      {"gelu_new", Activation::kGeluTanh},
      {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"relu", Activation::kRelu},
  };
  MOESAIC_ASSIGN_OR_RETURN(const std::string name, JsonString(config, "hidden_act", kWhat, "silu"));
  for (const auto& [known, activation] : kNames) {
    if (name == known) return activation;
  }
  return absl::UnimplementedError(
      StrCat(kWhat, ": \"hidden_act\" is \"", name.substr(0, 100), "\", which is not known"));
}

absl::Status ReadAttention(const Family& family, const Json& config, ModelConfig* out) {
  MOESAIC_RETURN_IF_ERROR(
      ReadInt(config, "num_attention_heads", 1, kMaxHeads, std::nullopt, &out->num_heads));
  const int32_t default_kv_heads =
      family.default_kv_heads > 0 ? family.default_kv_heads : out->num_heads;
  MOESAIC_RETURN_IF_ERROR(ReadInt(config, "num_key_value_heads", 1, out->num_heads,
                                  default_kv_heads, &out->num_kv_heads));
  if (out->num_heads % out->num_kv_heads != 0) {
    return absl::InvalidArgumentError(
        StrCat(kWhat, ": \"num_key_value_heads\" is ", out->num_kv_heads,
               ", expected a divisor of num_attention_heads ", out->num_heads));
  }
  MOESAIC_RETURN_IF_ERROR(ReadInt(config, "head_dim", 2, kMaxHeadDim,
                                  out->hidden_size / out->num_heads, &out->head_dim));
  if (out->head_dim < 2 || out->head_dim > kMaxHeadDim || out->head_dim % 2 != 0) {
    return absl::InvalidArgumentError(StrCat(kWhat, ": \"head_dim\" is ", out->head_dim,
                                             ", expected an even number in [2, ", kMaxHeadDim,
                                             "]"));
  }
  out->rotary_dim = out->head_dim;

  switch (family.attention_bias) {
    case AttentionBiasRule::kNone:
      break;
    case AttentionBiasRule::kQkv: {
      MOESAIC_ASSIGN_OR_RETURN(out->qkv_bias, JsonBool(config, "qkv_bias", kWhat, true));
      break;
    }
    case AttentionBiasRule::kQkvAndOutput: {
      MOESAIC_ASSIGN_OR_RETURN(out->qkv_bias, JsonBool(config, "attention_bias", kWhat, false));
      out->output_bias = out->qkv_bias;
      break;
    }
  }
  out->qk_norm = family.qk_norm;
  if (family.has_clip_qkv) {
    MOESAIC_ASSIGN_OR_RETURN(const double clip, JsonNumber(config, "clip_qkv", kWhat, 0.0));
    const bool is_set = JsonFind(config, "clip_qkv") != nullptr;
    if (is_set && !(clip > 0.0 && clip <= std::numeric_limits<float>::max())) {
      return absl::InvalidArgumentError(
          StrCat(kWhat, ": \"clip_qkv\" is ", clip, ", expected a positive number"));
    }
    out->clip_qkv = static_cast<float>(clip);
  }
  return absl::OkStatus();
}

// A wrong length is refused in every family, as in transformers, also where the names mean nothing.
absl::Status CheckLayerTypes(const Json& config, int32_t num_layers) {
  const Json* types = JsonFind(config, "layer_types");
  if (types == nullptr) return absl::OkStatus();
  if (!types->is_array() || types->size() != static_cast<size_t>(num_layers)) {
    return absl::InvalidArgumentError(
        StrCat(kWhat, ": \"layer_types\" is ",
               types->is_array() ? StrCat("a list of ", types->size()) : "no list",
               ", expected a name for each of the num_hidden_layers ", num_layers));
  }
  return absl::OkStatus();
}

// The layers that layer_types, of the right length, calls sliding; none when the field is absent.
absl::StatusOr<std::optional<std::vector<bool>>> ReadLayerTypes(const Json& config) {
  const Json* types = JsonFind(config, "layer_types");
  if (types == nullptr) return std::nullopt;
  std::vector<bool> slides;
  for (const Json& type : *types) {
    const bool sliding = type == "sliding_attention";
    if (!sliding && type != "full_attention") {
      return absl::UnimplementedError(StrCat(kWhat, ": \"layer_types\" holds ",
                                             type.is_string() ? "another type" : "no name",
                                             ", supported: full_attention, sliding_attention"));
    }
    slides.push_back(sliding);
  }
  return slides;
}

absl::Status ReadSlidingWindow(const Family& family, const Json& config, ModelConfig* out) {
  MOESAIC_RETURN_IF_ERROR(CheckLayerTypes(config, out->num_layers));
  out->sliding_window.assign(static_cast<size_t>(out->num_layers), 0);
  const bool has_switch = family.sliding_window == SlidingWindowRule::kEveryLayerIfUsed ||
                          family.sliding_window == SlidingWindowRule::kLayerTypes;
  bool used = JsonFind(config, "sliding_window") != nullptr;
  if (has_switch) {
    MOESAIC_ASSIGN_OR_RETURN(used, JsonBool(config, "use_sliding_window", kWhat, false));
  }
  std::optional<std::vector<bool>> slides;
  if (family.sliding_window == SlidingWindowRule::kLayerTypes) {
    MOESAIC_ASSIGN_OR_RETURN(slides, ReadLayerTypes(config));
    const bool named = slides.has_value() && std::count(slides->begin(), slides->end(), true) > 0;
    if (named && !used) {
      return absl::InvalidArgumentError(
          StrCat(kWhat,
                 ": \"layer_types\" holds sliding_attention, but use_sliding_window is not "
                 "true"));
    }
  }
  // An explicit null switches the window off where a missing field means the family's default.
  const bool is_null = config.contains("sliding_window") && config["sliding_window"].is_null();
  if (!used || is_null) return absl::OkStatus();
  if (family.sliding_window == SlidingWindowRule::kUnsupported) {
    return absl::UnimplementedError(
        StrCat(kWhat, ": \"sliding_window\" is set, ", family.architecture, " has none"));
  }
  int32_t window = 0;
  const std::optional<int64_t> default_window =
      has_switch ? std::optional<int64_t>(4096) : std::nullopt;
  MOESAIC_RETURN_IF_ERROR(
      ReadInt(config, "sliding_window", 1, kMaxPositions, default_window, &window));
  int32_t max_window_layers = out->num_layers;
  if (family.sliding_window == SlidingWindowRule::kLayerTypes && !slides.has_value()) {
    MOESAIC_RETURN_IF_ERROR(
        ReadInt(config, "max_window_layers", 0, kMaxLayers, 28, &max_window_layers));
    slides.emplace();
    for (int32_t layer = 0; layer < out->num_layers; ++layer) {
      slides->push_back(layer % 2 == 0 && layer < max_window_layers);
    }
  }
  for (size_t layer = 0; layer < out->sliding_window.size(); ++layer) {
    if (!slides.has_value() || (*slides)[layer]) out->sliding_window[layer] = window;
  }
  return absl::OkStatus();
}

absl::Status ReadSparseLayers(const Family& family, const Json& config, ModelConfig* out) {
  out->layer_is_sparse.assign(static_cast<size_t>(out->num_layers), true);
  if (!family.has_dense_layers) return absl::OkStatus();
  int32_t step = 1;
  MOESAIC_RETURN_IF_ERROR(ReadInt(config, "decoder_sparse_step", 1, kMaxLayers, 1, &step));
  for (int32_t layer = 0; layer < out->num_layers; ++layer) {
    out->layer_is_sparse[layer] = (layer + 1) % step == 0;
  }
  if (const Json* dense = JsonFind(config, "mlp_only_layers"); dense != nullptr) {
    if (!dense->is_array()) {
      return absl::InvalidArgumentError(StrCat(kWhat, ": \"mlp_only_layers\" is not a list"));
    }
    for (const Json& layer : *dense) {
      if (!layer.is_number_integer()) {
        return absl::InvalidArgumentError(
            StrCat(kWhat, ": \"mlp_only_layers\" holds something that is not a layer"));
      }
      // transformers asks of each layer whether the list names it. An index that the model does
      // not have, a negative one too, changes nothing there, and checkpoints cut from larger ones
      // keep such lists.
      if (!layer.is_number_unsigned()) continue;
      const uint64_t index = layer.get<uint64_t>();
      if (index < out->layer_is_sparse.size()) out->layer_is_sparse[index] = false;
    }
  }
  const bool any_dense =
      std::count(out->layer_is_sparse.begin(), out->layer_is_sparse.end(), false) > 0;
  if (!any_dense) return absl::OkStatus();
  return ReadInt(config, "intermediate_size", 1, kMaxUnits, family.default_dense_units,
                 &out->dense_units);
}

absl::Status ReadExperts(const Family& family, const Json& config, ModelConfig* out) {
  const char* experts_field =
      JsonFind(config, "num_experts") != nullptr ? "num_experts" : "num_local_experts";
  MOESAIC_RETURN_IF_ERROR(
      ReadInt(config, experts_field, 1, kMaxExperts, family.default_experts, &out->num_experts));
  MOESAIC_RETURN_IF_ERROR(ReadInt(config, "num_experts_per_tok", 1,
                                  std::min<int64_t>(kMaxTopK, out->num_experts),
                                  family.default_top_k, &out->top_k));
  if (out->top_k > out->num_experts) {
    return absl::InvalidArgumentError(
        StrCat(kWhat, ": \"num_experts_per_tok\" is missing, its default ", out->top_k,
               " is more than the ", out->num_experts, " experts"));
  }
  MOESAIC_RETURN_IF_ERROR(ReadInt(config, family.expert_units_field, 1, kMaxUnits,
                                  family.default_expert_units, &out->expert_units));
  out->renormalize_gate = true;
  if (!family.always_renormalizes) {
    MOESAIC_ASSIGN_OR_RETURN(out->renormalize_gate,
                             JsonBool(config, "norm_topk_prob", kWhat, false));
  }
  if (family.default_shared_expert_units > 0) {
    MOESAIC_RETURN_IF_ERROR(ReadInt(config, "shared_expert_intermediate_size", 1, kMaxUnits,
                                    family.default_shared_expert_units, &out->shared_expert_units));
  }
  MOESAIC_ASSIGN_OR_RETURN(out->activation, ReadActivation(config));
  return ReadSparseLayers(family, config, out);
}

// A token id field that may be one id or a list. Ids outside the vocabulary can never be sampled
// and are left out.
absl::StatusOr<std::vector<int32_t>> ReadTokenIds(const Json& object,
                                                  const char* field,
                                                  std::string_view what,
                                                  int32_t vocab_size) {
  std::vector<int32_t> ids;
  const Json* value = JsonFind(object, field);
  if (value == nullptr) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  if (list.size() > kMaxEosTokens) {
    return absl::InvalidArgumentError(StrCat(what, ": \"", field, "\" holds ", list.size(),
                                             " ids, at most ", kMaxEosTokens, " are read"));
  }
  for (const Json& id : list) {
    if (!id.is_number_integer()) {
      return absl::InvalidArgumentError(
          StrCat(what, ": \"", field, "\" is not a token id or a list of them"));
    }
    if (id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(vocab_size)) {
      ids.push_back(id.get<int32_t>());
    }
  }
  return ids;
}

// generation_config.json decides where it says something, then config.json, then the family.
absl::StatusOr<std::vector<int32_t>> ReadSpecialToken(const Json& generation,
                                                      const Json& config,
                                                      const char* field,
                                                      std::optional<int32_t> fallback,
                                                      int32_t vocab_size) {
  if (JsonFind(generation, field) != nullptr) {
    return ReadTokenIds(generation, field, kGenerationWhat, vocab_size);
  }
  if (config.contains(field)) return ReadTokenIds(config, field, kWhat, vocab_size);
  if (fallback.has_value() && *fallback < vocab_size) return std::vector<int32_t>{*fallback};
  return std::vector<int32_t>{};
}

absl::Status ReadSpecialTokens(const Family& family,
                               const Json& generation,
                               const Json& config,
                               ModelConfig* out) {
  MOESAIC_ASSIGN_OR_RETURN(
      out->eos_token_ids,
      ReadSpecialToken(generation, config, "eos_token_id", family.default_eos, out->vocab_size));
  MOESAIC_ASSIGN_OR_RETURN(
      const std::vector<int32_t> bos,
      ReadSpecialToken(generation, config, "bos_token_id", family.default_bos, out->vocab_size));
  MOESAIC_ASSIGN_OR_RETURN(
      const std::vector<int32_t> pad,
      ReadSpecialToken(generation, config, "pad_token_id", family.default_pad, out->vocab_size));
  if (!bos.empty()) out->bos_token_id = bos.front();
  if (!pad.empty()) out->pad_token_id = pad.front();
  return absl::OkStatus();
}

absl::StatusOr<Json> ReadFolderJson(const std::filesystem::path& folder, const char* name) {
  MOESAIC_ASSIGN_OR_RETURN(const std::filesystem::path path, ConfinedPath(folder, name));
  return ParseJsonFile(path);
}

absl::StatusOr<ModelConfig> ReadConfig(const Json& config, const Json& generation) {
  if (!config.is_object() || !generation.is_object()) {
    return absl::InvalidArgumentError(
        StrCat(config.is_object() ? kGenerationWhat : kWhat, ": is not a JSON object"));
  }
  MOESAIC_ASSIGN_OR_RETURN(const Family* family, ReadFamily(config));
  if (JsonFind(config, "quantization_config") != nullptr) {
    return absl::UnimplementedError(
        StrCat(kWhat, ": \"quantization_config\" is set, quantized weights are not supported"));
  }
  ModelConfig out;
  out.architecture = std::string(family->architecture);
  MOESAIC_ASSIGN_OR_RETURN(out.checkpoint_dtype, ReadDType(config));
  MOESAIC_RETURN_IF_ERROR(
      ReadInt(config, "vocab_size", 1, kMaxVocab, std::nullopt, &out.vocab_size));
  MOESAIC_RETURN_IF_ERROR(
      ReadInt(config, "hidden_size", 1, kMaxHidden, std::nullopt, &out.hidden_size));
  MOESAIC_RETURN_IF_ERROR(
      ReadInt(config, "num_hidden_layers", 1, kMaxLayers, std::nullopt, &out.num_layers));
  MOESAIC_RETURN_IF_ERROR(ReadInt(config, "max_position_embeddings", 1, kMaxPositions,
                                  family->default_max_positions, &out.max_positions));
  MOESAIC_ASSIGN_OR_RETURN(const double eps,
                           JsonNumber(config, "rms_norm_eps", kWhat, family->default_norm_eps));
  if (!(eps > 0.0 && eps < 1.0)) {
    return absl::InvalidArgumentError(
        StrCat(kWhat, ": \"rms_norm_eps\" is ", eps, ", expected a number in (0, 1)"));
  }
  out.norm_eps = static_cast<float>(eps);
  MOESAIC_ASSIGN_OR_RETURN(out.tie_embeddings,
                           JsonBool(config, "tie_word_embeddings", kWhat, false));
  MOESAIC_RETURN_IF_ERROR(ReadAttention(*family, config, &out));
  MOESAIC_RETURN_IF_ERROR(ReadSlidingWindow(*family, config, &out));
  MOESAIC_RETURN_IF_ERROR(ReadExperts(*family, config, &out));
  MOESAIC_ASSIGN_OR_RETURN(RopeFrequencies rope, ReadRope(config, family->default_rope_theta,
                                                          out.head_dim, out.max_positions));
  out.rope_inverse_frequencies = std::move(rope.inverse_frequencies);
  out.rope_attention_factor = rope.attention_factor;
  MOESAIC_RETURN_IF_ERROR(ReadSpecialTokens(*family, generation, config, &out));
  return out;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json) {
  MOESAIC_ASSIGN_OR_RETURN(const Json config, ParseJson(config_json, kWhat));
  MOESAIC_ASSIGN_OR_RETURN(const Json generation,
                           ParseJson(generation_config_json, kGenerationWhat));
  return ReadConfig(config, generation);
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::filesystem::path& folder) {
  MOESAIC_ASSIGN_OR_RETURN(const Json config, ReadFolderJson(folder, kWhat));
  absl::StatusOr<Json> generation = ReadFolderJson(folder, kGenerationWhat);
  if (absl::IsNotFound(generation.status())) generation = Json::object();
  MOESAIC_RETURN_IF_ERROR(generation.status());
  return ReadConfig(config, *generation);
}

}  // namespace moesaic
