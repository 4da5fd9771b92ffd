#include "server/inference_service.h"

#include <vector>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "server/generate_reactor.h"
#include "server/grpc_status.h"
#include "server/sampling_proto.h"
#include "server/version.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::StatusOr<const Tokenizer*> RequireTokenizer(const ServedModel& model) {
  if (model.tokenizer != nullptr) return model.tokenizer.get();
  return absl::FailedPreconditionError(StrCat("model \"", model.name, "\" has no tokenizer files"));
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return new GenerateReactor(*request, admission_, *context);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  return Reply(context, EncodeText(*request, *response));
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  return Reply(context, DecodeIds(*request, *response));
}

grpc::ServerUnaryReactor* InferenceService::GetModelInfo(grpc::CallbackServerContext* context,
                                                         const v1::GetModelInfoRequest* request,
                                                         v1::GetModelInfoResponse* response) {
  return Reply(context, DescribeModel(*request, *response));
}

grpc::ServerUnaryReactor* InferenceService::GetLoad(grpc::CallbackServerContext* context,
                                                    const v1::GetLoadRequest*,
                                                    v1::GetLoadResponse* response) {
  return Reply(context, DescribeLoad(*response));
}

absl::Status InferenceService::EncodeText(const v1::TokenizeRequest& request,
                                          v1::TokenizeResponse& response) const {
  MOESAIC_ASSIGN_OR_RETURN(const ServedModel* model, admission_.FindModel(request.model()));
  MOESAIC_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, RequireTokenizer(*model));
  EncodeOptions options;
  if (request.has_add_special_tokens()) options.add_special_tokens = request.add_special_tokens();
  if (request.has_parse_special_tokens()) {
    options.parse_special_tokens = request.parse_special_tokens();
  }
  MOESAIC_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                           tokenizer->Encode(request.text(), options));
  response.mutable_ids()->Add(ids.begin(), ids.end());
  for (const int32_t id : ids) {
    std::string token = tokenizer->IdToToken(id);
    // A vocabulary may hold bytes that are no text; protobuf strings may not.
    if (FindInvalidUtf8(token)) token = PrintableText(token);
    response.add_tokens(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status InferenceService::DecodeIds(const v1::DetokenizeRequest& request,
                                         v1::DetokenizeResponse& response) const {
  MOESAIC_ASSIGN_OR_RETURN(const ServedModel* model, admission_.FindModel(request.model()));
  MOESAIC_ASSIGN_OR_RETURN(const Tokenizer* tokenizer, RequireTokenizer(*model));
  for (const int32_t id : request.ids()) {
    if (id < 0 || id >= model->config.vocab_size) {
      return absl::InvalidArgumentError(
          StrCat("ids: got ", id, ", expected 0 to ", model->config.vocab_size - 1));
    }
  }
  DecodeOptions options;
  if (request.has_skip_special_tokens())
    options.skip_special_tokens = request.skip_special_tokens();
  const std::vector<int32_t> ids(request.ids().begin(), request.ids().end());
  response.set_text(tokenizer->Decode(ids, options));
  return absl::OkStatus();
}

absl::Status InferenceService::DescribeModel(const v1::GetModelInfoRequest& request,
                                             v1::GetModelInfoResponse& response) const {
  MOESAIC_ASSIGN_OR_RETURN(const ServedModel* model, admission_.FindModel(request.model()));
  const ModelConfig& config = model->config;
  response.set_model(model->name);
  response.set_architecture(config.architecture);
  response.set_dtype(std::string(DTypeName(model->dtype)));
  v1::GetModelInfoResponse::Shape& shape = *response.mutable_shape();
  shape.set_vocab_size(config.vocab_size);
  shape.set_hidden_size(config.hidden_size);
  shape.set_num_layers(config.num_layers);
  shape.set_num_heads(config.num_heads);
  shape.set_num_kv_heads(config.num_kv_heads);
  shape.set_head_dim(config.head_dim);
  shape.set_num_experts(config.num_experts);
  shape.set_experts_per_token(config.top_k);
  shape.set_expert_intermediate_size(config.expert_units);
  v1::GetModelInfoResponse::Limits& limits = *response.mutable_limits();
  limits.set_max_model_len(model->engine->max_model_len());
  limits.set_max_sequences(admission_.max_sequences());
  limits.set_max_queue(admission_.max_queue());
  limits.set_max_n(model->limits.max_n);
  limits.set_max_logprobs(model->limits.max_logprobs);
  limits.set_max_stop_strings(model->limits.max_stop_strings);
  limits.set_max_stop_string_bytes(model->limits.max_stop_string_bytes);
  limits.set_max_stop_token_ids(model->limits.max_stop_token_ids);
  limits.set_max_message_bytes(max_message_bytes_);
  response.mutable_eos_token_ids()->Add(config.eos_token_ids.begin(), config.eos_token_ids.end());
  if (config.bos_token_id) response.set_bos_token_id(*config.bos_token_id);
  if (config.pad_token_id) response.set_pad_token_id(*config.pad_token_id);
  response.set_has_tokenizer(model->tokenizer != nullptr);
  response.set_chat_template(model->chat_template);
  response.set_weight_bytes(model->weight_bytes);
  *response.mutable_defaults() = EncodeSamplingParams(model->defaults);
  response.set_server_version(kVersion);
  response.set_routing_replayed(model->engine->replays_routing());
  return absl::OkStatus();
}

absl::Status InferenceService::DescribeLoad(v1::GetLoadResponse& response) const {
  MOESAIC_ASSIGN_OR_RETURN(const ServedModel* model, admission_.FindModel(""));
  const EngineLoad load = model->engine->load();
  response.set_running(load.running);
  response.set_waiting(load.waiting);
  response.set_kv_blocks_total(load.kv_blocks_total);
  response.set_kv_blocks_used(load.kv_blocks_used);
  response.set_max_sequences(admission_.max_sequences());
  response.set_max_queue(admission_.max_queue());
  response.set_draining(admission_.draining());
  return absl::OkStatus();
}

}  // namespace moesaic
