#include "model/decoder_activations.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "kernels/attention.h"

namespace moesaic {
namespace {

constexpr int64_t kFloat = sizeof(float);
constexpr int64_t kInt = sizeof(int32_t);

class Describer {
 public:
  Describer(const ModelConfig& config, const ActivationSizes& sizes)
      : config_(config),
        sizes_(sizes),
        element_(static_cast<int64_t>(DTypeBytes(sizes.dtype))),
        hidden_(config.hidden_size),
        q_dim_(int64_t{config.num_heads} * config.head_dim),
        qkv_dim_(q_dim_ + int64_t{2} * config.num_kv_heads * config.head_dim),
        sparse_(config.num_experts > 0 && std::any_of(config.layer_is_sparse.begin(),
                                                      config.layer_is_sparse.end(),
                                                      [](bool sparse) { return sparse; })),
        dense_(std::any_of(config.layer_is_sparse.begin(),
                           config.layer_is_sparse.end(),
                           [](bool sparse) { return !sparse; })) {}

  DecoderActivations Describe() {
    AddTensors();
    // Gathered by token.
    AnyOrder("embedding", {}, {a_.residual});
    Attention();
    ByRows("post-attention norm", sizes_.rows, {{a_.residual, hidden_ * kFloat}},
           {{a_.ffn_input, hidden_ * element_}});
    if (sparse_) RoutedExperts();
    if (sparse_ && config_.shared_expert_units > 0) SharedExpert();
    if (dense_) {
      AnyOrder("dense MLP", {a_.ffn_input, a_.every_row, a_.ones, a_.residual}, {a_.residual},
               {a_.mlp_workspace});
    }
    AnyOrder("final norm", {a_.residual}, {a_.head_input});
    AnyOrder("head", {a_.head_input}, {});
    return std::move(a_);
  }

 private:
  void AddTensors() {
    ActivationGraph& graph = a_.graph;
    const int64_t rows = sizes_.rows;
    const int64_t tile = sizes_.attention_rows;
    const int64_t entries = rows * config_.top_k;
    a_.residual = graph.Add("residual", rows * hidden_ * kFloat);
    a_.attention_input = graph.Add("attention input", tile * hidden_ * element_);
    a_.qkv = graph.Add("qkv", tile * qkv_dim_ * kFloat);
    a_.q = graph.Add("q", tile * q_dim_ * element_);
    a_.attention = graph.Add("attention", tile * q_dim_ * element_);
    a_.attention_workspace = graph.Add("attention workspace", sizes_.attention_workspace_bytes);
    a_.ffn_input = graph.Add("ffn input", rows * hidden_ * element_);
    a_.gate_logits = graph.Add("gate logits", rows * config_.num_experts * kFloat);
    a_.gate_experts = graph.Add("gate experts", entries * kInt);
    a_.gate_weights = graph.Add("gate weights", entries * kFloat);
    a_.expert_offsets = graph.Add("expert offsets", (config_.num_experts + 1) * kInt);
    a_.expert_rows = graph.Add("expert rows", entries * kInt);
    a_.expert_weights = graph.Add("expert weights", entries * kFloat);
    a_.shared_weights = graph.Add("shared weights", rows * kFloat);
    a_.ffn_workspace = graph.Add("ffn workspace", sizes_.ffn_workspace_bytes);
    a_.mlp_workspace = graph.Add("mlp workspace", sizes_.mlp_workspace_bytes);
    a_.expert_sums = graph.Add("expert sums", sizes_.expert_sums_bytes);
    a_.head_input = graph.Add("head input", sizes_.logits_rows * hidden_ * element_);
    a_.every_row = graph.AddPersistent("every row", rows * kInt);
    a_.ones = graph.AddPersistent("ones", rows * kFloat);
    a_.kv_slots = graph.AddPersistent("kv slots", rows * int64_t{sizeof(int64_t)});
    constexpr int64_t kSequenceBytes = sizeof(kernels::AttentionSequence);
    a_.sequences = graph.AddPersistent("sequences", rows * kSequenceBytes);
    a_.attention_sequences = graph.AddPersistent("attention sequences", tile * kSequenceBytes);
  }

  void Attention() {
    const int64_t tile = sizes_.attention_rows;
    const int64_t head_group = q_dim_ / config_.num_kv_heads * element_;
    ByRows("input norm", tile, {{a_.residual, hidden_ * kFloat}},
           {{a_.attention_input, hidden_ * element_}});
    ByColumns("qkv projection", tile, {a_.attention_input, hidden_ * element_},
              {a_.qkv, qkv_dim_ * kFloat});
    // Writes parts of a row before it has read the others.
    AnyOrder("rotary embedding", {a_.qkv}, {a_.q});
    // An item is some rows and one KV head's queries. It copies them before it computes, and writes
    // the same place when it is done.
    ActivationOperator attention = {.name = "attention",
                                    .domain = {tile, config_.num_kv_heads},
                                    .parallel_dims = 2,
                                    .workspace = {a_.attention_workspace}};
    attention.reads = {{a_.q, head_group, {q_dim_ * element_, head_group}}};
    attention.writes = {{a_.attention, head_group, {q_dim_ * element_, head_group}}};
    a_.graph.operators.push_back(std::move(attention));
    AnyOrder("attention output", {a_.attention, a_.residual}, {a_.residual});
  }

  void RoutedExperts() {
    const int64_t rows = sizes_.rows;
    ByColumns("gate", rows, {a_.ffn_input, hidden_ * element_},
              {a_.gate_logits, config_.num_experts * kFloat});
    // Looks at a row's logits again after each choice that it writes.
    AnyOrder("gate top k", {a_.gate_logits}, {a_.gate_experts, a_.gate_weights});
    AnyOrder("group by expert", {a_.gate_experts, a_.gate_weights},
             {a_.expert_offsets, a_.expert_rows, a_.expert_weights});
    AnyOrder("routed experts",
             {a_.ffn_input, a_.expert_offsets, a_.expert_rows, a_.expert_weights, a_.residual},
             {a_.residual}, {a_.ffn_workspace, a_.expert_sums});
  }

  void SharedExpert() {
    const int64_t rows = sizes_.rows;
    ByColumns("shared expert's gate", rows, {a_.ffn_input, hidden_ * element_},
              {a_.shared_weights, kFloat});
    ByRows("sigmoid", rows, {{a_.shared_weights, kFloat}}, {{a_.shared_weights, kFloat}});
    AnyOrder("shared expert", {a_.ffn_input, a_.every_row, a_.shared_weights, a_.residual},
             {a_.residual}, {a_.mlp_workspace});
  }

  void ByRows(std::string name,
              int64_t rows,
              const std::vector<RowOperand>& inputs,
              const std::vector<RowOperand>& outputs) {
    a_.graph.operators.push_back(
        RowWise(std::move(name), rows, inputs, outputs, /*parallel=*/true));
  }
  void ByColumns(std::string name, int64_t rows, RowOperand input, RowOperand output) {
    a_.graph.operators.push_back(
        ColumnParallelLinear(std::move(name), rows, input, output, /*column_bytes=*/kFloat));
  }
  // Reads and writes anywhere in these tensors until its end: nothing is consumed before.
  void AnyOrder(std::string name,
                const std::vector<int32_t>& reads,
                const std::vector<int32_t>& writes,
                std::vector<int32_t> workspace = {}) {
    ActivationOperator op = {
        .name = std::move(name), .domain = {2}, .workspace = std::move(workspace)};
    const auto whole = [&](int32_t tensor) {
      return TensorAccess{tensor, a_.graph.tensors[tensor].bytes, {0}};
    };
    for (const int32_t tensor : reads) op.reads.push_back(whole(tensor));
    for (const int32_t tensor : writes) op.writes.push_back(whole(tensor));
    a_.graph.operators.push_back(std::move(op));
  }

  const ModelConfig& config_;
  const ActivationSizes& sizes_;
  const int64_t element_;
  const int64_t hidden_;
  const int64_t q_dim_;
  const int64_t qkv_dim_;
  const bool sparse_;
  const bool dense_;
  DecoderActivations a_;
};

}  // namespace

DecoderActivations DescribeActivations(const ModelConfig& config, const ActivationSizes& sizes) {
  return Describer(config, sizes).Describe();
}

}  // namespace moesaic
