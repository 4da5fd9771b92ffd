#include "tools/cli/output.h"

#include "absl/strings/str_format.h"
#include "base/progress.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"

namespace moesaic::cli {
namespace {

Json LogprobJson(const v1::Logprob& logprob) {
  return {
      {"token_id", logprob.token_id()}, {"logprob", logprob.logprob()}, {"rank", logprob.rank()}};
}

Json LogprobsJson(const google::protobuf::RepeatedPtrField<v1::TokenLogprobs>& tokens) {
  Json list = Json::array();
  for (const v1::TokenLogprobs& token : tokens) {
    Json top = Json::array();
    for (const v1::Logprob& logprob : token.top()) top.push_back(LogprobJson(logprob));
    list.push_back({{"chosen", LogprobJson(token.chosen())}, {"top", std::move(top)}});
  }
  return list;
}

std::string Dump(const Json& json) { return json.dump(-1, ' ', false) + "\n"; }

std::string JoinIds(const google::protobuf::RepeatedField<int32_t>& ids) {
  std::string out;
  for (const int32_t id : ids) out += StrCat(id, " ");
  return out;
}

const char* Name(v1::FinishReason reason) {
  return reason == v1::FINISH_REASON_STOP ? "stop" : "length";
}

}  // namespace

GenerationPrinter::GenerationPrinter(const Options& options, std::FILE* out, std::FILE* err)
    : options_(options), out_(out), err_(err) {
  const int32_t n = options.request.sampling().n();
  if (n > 1 && n <= 1024) texts_.resize(static_cast<size_t>(n));
}

void GenerationPrinter::Print(const v1::GenerateResponse& message) {
  tokens_ += message.token_ids_size();
  if (message.has_usage()) {
    usage_.set_prompt_tokens(message.usage().prompt_tokens());
    usage_.set_cached_prompt_tokens(message.usage().cached_prompt_tokens());
  }
  std::string text = message.text();
  if (options_.json) {
    text = ToJson(message);
  } else if (options_.prompt_is_ids) {
    text = JoinIds(message.token_ids());
  }
  if (!texts_.empty() && !options_.json) {
    const auto index = static_cast<size_t>(message.index());
    if (index < texts_.size()) texts_[index] += text;
    return;
  }
  if (text.empty()) return;
  std::fwrite(text.data(), 1, text.size(), out_);
  std::fflush(out_);
  ends_with_newline_ = text.back() == '\n';
}

void GenerationPrinter::Finish(absl::Duration elapsed, absl::Duration to_first_token) {
  for (size_t i = 0; i < texts_.size() && !options_.json; ++i) {
    std::fprintf(out_, "[%zu] %s\n", i, texts_[i].c_str());
  }
  if (!ends_with_newline_) std::fputc('\n', out_);
  std::fflush(out_);
  if (!options_.stats || tokens_ == 0) return;
  const double rest = absl::ToDoubleSeconds(elapsed - to_first_token);
  const double rate = rest > 0 ? static_cast<double>(tokens_ - 1) / rest : 0.0;
  std::fprintf(err_,
               "%d prompt tokens (%d cached), %lld new; first token after %.3f s, %.1f tokens/s "
               "after it\n",
               usage_.prompt_tokens(), usage_.cached_prompt_tokens(),
               static_cast<long long>(tokens_), absl::ToDoubleSeconds(to_first_token), rate);
}

std::string ToJson(const v1::GenerateResponse& message) {
  Json json = {
      {"request_id", message.request_id()},
      {"index", message.index()},
      {"text", message.text()},
      {"token_ids", std::vector<int32_t>(message.token_ids().begin(), message.token_ids().end())}};
  if (message.logprobs_size() > 0) json["logprobs"] = LogprobsJson(message.logprobs());
  if (message.prompt_logprobs_size() > 0) {
    json["prompt_logprobs"] = LogprobsJson(message.prompt_logprobs());
  }
  if (message.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
    json["finish_reason"] = Name(message.finish_reason());
  }
  if (message.has_stop_string()) json["stop_reason"] = message.stop_string();
  if (message.has_stop_token_id()) json["stop_reason"] = message.stop_token_id();
  if (message.has_usage()) {
    json["usage"] = {{"prompt_tokens", message.usage().prompt_tokens()},
                     {"cached_prompt_tokens", message.usage().cached_prompt_tokens()},
                     {"completion_tokens", message.usage().completion_tokens()}};
  }
  return Dump(json);
}

std::string ToJson(const v1::TokenizeResponse& message) {
  return Dump(
      {{"ids", std::vector<int32_t>(message.ids().begin(), message.ids().end())},
       {"tokens", std::vector<std::string>(message.tokens().begin(), message.tokens().end())}});
}

std::string ToJson(const v1::GetModelInfoResponse& info, const v1::GetLoadResponse& load) {
  const auto& shape = info.shape();
  const auto& limits = info.limits();
  Json json = {{"model", info.model()},
               {"architecture", info.architecture()},
               {"dtype", info.dtype()},
               {"weight_bytes", info.weight_bytes()},
               {"has_tokenizer", info.has_tokenizer()},
               {"server_version", info.server_version()},
               {"routing_replayed", info.routing_replayed()},
               {"shape",
                {{"vocab_size", shape.vocab_size()},
                 {"hidden_size", shape.hidden_size()},
                 {"num_layers", shape.num_layers()},
                 {"num_heads", shape.num_heads()},
                 {"num_kv_heads", shape.num_kv_heads()},
                 {"head_dim", shape.head_dim()},
                 {"num_experts", shape.num_experts()},
                 {"experts_per_token", shape.experts_per_token()},
                 {"expert_intermediate_size", shape.expert_intermediate_size()}}},
               {"limits",
                {{"max_model_len", limits.max_model_len()},
                 {"max_sequences", limits.max_sequences()},
                 {"max_queue", limits.max_queue()},
                 {"max_n", limits.max_n()},
                 {"max_logprobs", limits.max_logprobs()},
                 {"max_message_bytes", limits.max_message_bytes()}}},
               {"eos_token_ids",
                std::vector<int32_t>(info.eos_token_ids().begin(), info.eos_token_ids().end())},
               {"load",
                {{"running", load.running()},
                 {"waiting", load.waiting()},
                 {"kv_blocks_total", load.kv_blocks_total()},
                 {"kv_blocks_used", load.kv_blocks_used()},
                 {"draining", load.draining()}}}};
  if (info.has_bos_token_id()) json["bos_token_id"] = info.bos_token_id();
  if (info.has_pad_token_id()) json["pad_token_id"] = info.pad_token_id();
  if (!info.chat_template().empty()) json["chat_template"] = info.chat_template();
  return Dump(json);
}

std::string Describe(const v1::GetModelInfoResponse& info, const v1::GetLoadResponse& load) {
  const auto& shape = info.shape();
  const auto& limits = info.limits();
  std::string out =
      absl::StrFormat("%-14s %s (%s, %s, %s)\n", "model", info.model(), info.architecture(),
                      info.dtype(), FormatBytes(static_cast<uint64_t>(info.weight_bytes())));
  out += absl::StrFormat("%-14s %d layers, hidden %d, %d heads (%d KV) of %d, vocabulary %d\n",
                         "shape", shape.num_layers(), shape.hidden_size(), shape.num_heads(),
                         shape.num_kv_heads(), shape.head_dim(), shape.vocab_size());
  out +=
      absl::StrFormat("%-14s %d of %d units, %d for each token\n", "experts", shape.num_experts(),
                      shape.expert_intermediate_size(), shape.experts_per_token());
  out +=
      absl::StrFormat("%-14s %d tokens of prompt and output, %d sequences, queue of %d\n", "limits",
                      limits.max_model_len(), limits.max_sequences(), limits.max_queue());
  out += absl::StrFormat("%-14s %s\n", "text", info.has_tokenizer() ? "yes" : "no: token ids only");
  out += absl::StrFormat("%-14s %d running, %d waiting, %d of %d KV blocks used%s\n", "load",
                         load.running(), load.waiting(), load.kv_blocks_used(),
                         load.kv_blocks_total(), load.draining() ? ", shutting down" : "");
  if (info.routing_replayed()) {
    out += absl::StrFormat("%-14s replayed: answers are not the model's\n", "routing");
  }
  out += absl::StrFormat("%-14s moesaic %s\n", "server", info.server_version());
  return out;
}

}  // namespace moesaic::cli
