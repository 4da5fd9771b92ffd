#include "model/decoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/str_cat.h"
#include "model/decoder_activations.h"

namespace moesaic {
namespace {

// 440 rows of a vocabulary of 152,000: more than a decode step has.
constexpr size_t kKeptLogitsBytes = size_t{256} << 20;

}  // namespace

Decoder::Decoder(ModelConfig config,
                 ModelWeights weights,
                 RopeTable rope,
                 ActivationBuffers buffers,
                 Tier tier,
                 int64_t sums_rows,
                 const kernels::KernelTable& kernels,
                 Stream stream)
    : config_(std::move(config)),
      weights_(std::move(weights)),
      rope_(std::move(rope)),
      buffers_(std::move(buffers)),
      tier_(std::move(tier)),
      kernels_(kernels),
      stream_(stream) {
  if (tier_.memory != nullptr) {
    tiered_experts_.emplace(*tier_.memory, buffers_.expert_sums, sums_rows);
  }
  blocks_.push_back({BlockKind::kEmbedding});
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    blocks_.push_back({BlockKind::kAttention, layer});
    blocks_.push_back({BlockKind::kMoe, layer});
  }
  blocks_.push_back({BlockKind::kHead});
}

KvShape Decoder::kv_shape() const { return KvShapeOf(config_, weights_.dtype); }

void Decoder::BeginStep(const Batch& batch, const KvCache& kv) {
  // A step that wanted every prompt token's logits may have used gigabytes: hand them back.
  if (logits().size_bytes() > kKeptLogitsBytes) buffers_.logits.Discard(kKeptLogitsBytes);
  batch_ = &batch;
  kv_ = &kv;
  rows_ = batch.num_rows();
  num_logits_rows_ = static_cast<int64_t>(batch.logits_rows.size());
  counters_ = {};
  failures_.clear();
  ++step_;
  kernels::AttentionSequence* sequence = buffers_.sequences;
  for (const BatchSequence& part : batch.sequences) {
    *sequence++ = {.first_row = part.first_row,
                   .num_rows = part.num_rows,
                   .context_tokens = part.context_tokens,
                   .block_table = part.block_table.data()};
    for (int32_t i = 0; i < part.num_rows; ++i) {
      const int32_t position = part.context_tokens + i;
      const int64_t block = part.block_table[position / kKvBlockTokens];
      buffers_.kv_slots[part.first_row + i] = block * kKvBlockTokens + position % kKvBlockTokens;
    }
  }
}

absl::Status Decoder::RunBlock(int32_t block) {
  if (block < 0 || block >= static_cast<int32_t>(blocks_.size())) {
    return absl::InvalidArgumentError(
        StrCat("block ", block, " of a model of ", blocks_.size(), " blocks"));
  }
  const BlockInfo& info = blocks_[block];
  switch (info.kind) {
    case BlockKind::kEmbedding:
      RunEmbedding();
      break;
    case BlockKind::kAttention:
      RunAttention(info.layer);
      break;
    case BlockKind::kMoe:
      RunFeedForward(info.layer);
      break;
    case BlockKind::kHead:
      RunHead();
      break;
  }
  return absl::OkStatus();
}

std::span<const float> Decoder::logits() const {
  return {buffers_.logits.as<const float>(),
          static_cast<size_t>(num_logits_rows_ * config_.vocab_size)};
}

void Decoder::Norm(const AlignedBuffer& weight,
                   int64_t rows,
                   const float* input,
                   const int32_t* row_index,
                   void* output) {
  kernels_.rms_norm({.rows = rows,
                     .dim = config_.hidden_size,
                     .eps = config_.norm_eps,
                     .input = input,
                     .row_index = row_index,
                     .weight = weight.as<float>(),
                     .output_dtype = weights_.dtype,
                     .output = output},
                    stream_);
}

void Decoder::Linear(
    const PackedLinear& linear, int64_t rows, const void* input, float* output, bool accumulate) {
  kernels_.linear({.dtype = weights_.dtype,
                   .shape = linear.shape,
                   .rows = rows,
                   .input = input,
                   .weight = linear.weight.data(),
                   .bias = linear.bias.as<float>(),
                   .output = output,
                   .accumulate = accumulate},
                  stream_);
}

void Decoder::RunEmbedding() {
  const bool tied = weights_.embedding.size() == 0;
  kernels_.embedding({.dtype = weights_.dtype,
                      .shape = weights_.lm_head.shape,
                      .packed = tied,
                      .table = tied ? weights_.lm_head.weight.data() : weights_.embedding.data(),
                      .rows = rows_,
                      .tokens = batch_->tokens.data(),
                      .output = buffers_.residual},
                     stream_);
  counters_.dense_bytes +=
      rows_ * config_.hidden_size * static_cast<int64_t>(DTypeBytes(weights_.dtype));
}

void Decoder::RunAttention(int32_t layer) {
  for (int64_t first = 0; first < rows_; first += kAttentionRowsAtATime) {
    RunAttentionRows(layer, first, std::min(rows_ - first, kAttentionRowsAtATime));
  }
  CountWeights(weights_.layers[layer].qkv);
  CountWeights(weights_.layers[layer].attention_output);
  counters_.kv_bytes += VisibleKvTokens(layer) * 2 * config_.num_kv_heads * config_.head_dim *
                        static_cast<int64_t>(DTypeBytes(weights_.dtype));
}

void Decoder::RunAttentionRows(int32_t layer, int64_t first, int64_t count) {
  const LayerWeights& weights = weights_.layers[layer];
  float* const residual = buffers_.residual + first * config_.hidden_size;
  Norm(weights.input_norm, count, residual, nullptr, buffers_.attention_input);
  Linear(weights.qkv, count, buffers_.attention_input, buffers_.qkv, /*accumulate=*/false);
  kernels_.qkv({.dtype = weights_.dtype,
                .rows = count,
                .num_heads = config_.num_heads,
                .num_kv_heads = config_.num_kv_heads,
                .head_dim = config_.head_dim,
                .qkv = buffers_.qkv,
                .clip = config_.clip_qkv,
                .qk_norm = config_.qk_norm,
                .q_norm_weight = weights.q_norm.as<float>(),
                .k_norm_weight = weights.k_norm.as<float>(),
                .norm_eps = config_.norm_eps,
                .rotary_dim = config_.rotary_dim,
                .cos_table = rope_.cosines(),
                .sin_table = rope_.sines(),
                .positions = batch_->positions.data() + first,
                .kv_slots = buffers_.kv_slots + first,
                .q_output = buffers_.q,
                .k_cache = kv_->k(layer),
                .v_cache = kv_->v(layer)},
               stream_);
  kernels_.attention({.dtype = weights_.dtype,
                      .num_heads = config_.num_heads,
                      .num_kv_heads = config_.num_kv_heads,
                      .head_dim = config_.head_dim,
                      .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                      .sliding_window = config_.sliding_window[layer],
                      .num_sequences = CutSequences(first, count),
                      .sequences = buffers_.attention_sequences,
                      .q = buffers_.q,
                      .k_cache = kv_->k(layer),
                      .v_cache = kv_->v(layer),
                      .output = buffers_.attention,
                      .workspace = buffers_.attention_workspace},
                     stream_);
  Linear(weights.attention_output, count, buffers_.attention, residual, /*accumulate=*/true);
}

int64_t Decoder::CutSequences(int64_t first, int64_t count) {
  int64_t cut = 0;
  for (size_t i = 0; i < batch_->sequences.size(); ++i) {
    const kernels::AttentionSequence& whole = buffers_.sequences[i];
    const int64_t begin = std::max<int64_t>(whole.first_row, first);
    const int64_t end = std::min<int64_t>(whole.first_row + whole.num_rows, first + count);
    if (begin >= end) continue;
    buffers_.attention_sequences[cut++] = {
        .first_row = static_cast<int32_t>(begin - first),
        .num_rows = static_cast<int32_t>(end - begin),
        .context_tokens = static_cast<int32_t>(whole.context_tokens + begin - whole.first_row),
        .block_table = whole.block_table};
  }
  return cut;
}

// Tokens whose keys and values the layer reads, each counted once per sequence.
int64_t Decoder::VisibleKvTokens(int32_t layer) const {
  const int32_t window = config_.sliding_window[layer];
  int64_t tokens = 0;
  for (const BatchSequence& sequence : batch_->sequences) {
    const int32_t first = window > 0 ? std::max(sequence.context_tokens + 1 - window, 0) : 0;
    tokens += sequence.context_tokens + sequence.num_rows - first;
  }
  return tokens;
}

void Decoder::RunFeedForward(int32_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  Norm(weights.post_attention_norm, rows_, buffers_.residual, nullptr, buffers_.ffn_input);
  if (weights.expert_layer < 0) {
    RunWholeBatchExpert(weights_.dense_mlps, weights.dense_layer, buffers_.ones);
    return;
  }
  RunRoutedExperts(weights);
  if (config_.shared_expert_units > 0) RunSharedExpert(weights);
}

void Decoder::RunRoutedExperts(const LayerWeights& layer) {
  const PackedExperts& experts = weights_.experts;
  Linear(layer.gate, rows_, buffers_.ffn_input, buffers_.gate_logits, /*accumulate=*/false);
  CountWeights(layer.gate);
  kernels_.gate_top_k({.rows = rows_,
                       .num_experts = config_.num_experts,
                       .top_k = config_.top_k,
                       .renormalize = config_.renormalize_gate,
                       .logits = buffers_.gate_logits,
                       .experts = buffers_.gate_experts,
                       .weights = buffers_.gate_weights},
                      stream_);
  const int64_t tick = step_ * num_expert_layers() + layer.expert_layer;
  if (hook_ != nullptr) {
    const size_t entries = static_cast<size_t>(rows_) * config_.top_k;
    hook_->OnGate(layer.expert_layer, tick, {buffers_.gate_experts, entries},
                  {buffers_.gate_weights, entries});
  }
  kernels::GroupRowsByExpert(rows_, config_.top_k, config_.num_experts, buffers_.gate_experts,
                             buffers_.gate_weights, buffers_.expert_offsets, buffers_.expert_rows,
                             buffers_.expert_weights);
  kernels::ExpertFfnArgs args = {.shape = experts.stripe,
                                 .activation = config_.activation,
                                 .num_rows = rows_,
                                 .routed = {.num_experts = config_.num_experts,
                                            .offsets = buffers_.expert_offsets,
                                            .rows = buffers_.expert_rows,
                                            .weights = buffers_.expert_weights},
                                 .stripes_per_expert = experts.layout.num_stripes,
                                 .input = buffers_.ffn_input,
                                 .output = buffers_.residual,
                                 .workspace = buffers_.ffn_workspace};
  if (tiered_experts_) {
    tiered_experts_->Run(layer.expert_layer, tick, args, kernels_.expert_ffn, stream_, failures_);
  } else {
    args.stripes = experts.LayerStripes(layer.expert_layer).data();
    kernels_.expert_ffn(args, stream_);
  }
  for (int32_t expert = 0; expert < config_.num_experts; ++expert) {
    if (buffers_.expert_offsets[expert] != buffers_.expert_offsets[expert + 1]) {
      counters_.expert_bytes += experts.expert_bytes();
    }
  }
}

void Decoder::RunSharedExpert(const LayerWeights& layer) {
  Linear(layer.shared_expert_gate, rows_, buffers_.ffn_input, buffers_.shared_weights,
         /*accumulate=*/false);
  CountWeights(layer.shared_expert_gate);
  kernels_.sigmoid({.count = rows_, .values = buffers_.shared_weights}, stream_);
  RunWholeBatchExpert(weights_.shared_experts, layer.expert_layer, buffers_.shared_weights);
}

void Decoder::RunWholeBatchExpert(const PackedExperts& experts,
                                  int32_t layer,
                                  const float* row_weights) {
  const std::array<int32_t, 2> offsets = {0, static_cast<int32_t>(rows_)};
  kernels_.expert_ffn({.shape = experts.stripe,
                       .activation = config_.activation,
                       .num_rows = rows_,
                       .routed = {.num_experts = 1,
                                  .offsets = offsets.data(),
                                  .rows = buffers_.every_row,
                                  .weights = row_weights},
                       .stripes_per_expert = experts.layout.num_stripes,
                       .stripes = experts.LayerStripes(layer).data(),
                       .input = buffers_.ffn_input,
                       .output = buffers_.residual,
                       .workspace = buffers_.mlp_workspace},
                      stream_);
  counters_.dense_bytes += experts.expert_bytes();
}

void Decoder::RunHead() {
  if (num_logits_rows_ == 0) return;
  Norm(weights_.final_norm, num_logits_rows_, buffers_.residual, batch_->logits_rows.data(),
       buffers_.head_input);
  Linear(weights_.lm_head, num_logits_rows_, buffers_.head_input, buffers_.logits.as<float>(),
         /*accumulate=*/false);
  CountWeights(weights_.lm_head);
}

}  // namespace moesaic
