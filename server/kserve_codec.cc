#include "server/kserve_codec.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"
#include "server/kserve_tensors.h"
#include "server/sampling_json.h"

namespace moesaic {
namespace {

constexpr int kMaxOutputs = 16;
constexpr int kMaxParameters = 64;
constexpr char kFinalResponse[] = "triton_final_response";
constexpr char kEmptyFinalResponse[] = "triton_enable_empty_final_response";
constexpr char kSequenceIndex[] = "sequence_index";

struct TensorSpec {
  const char* name;
  const char* datatype;
  inference::DataType config_type;
  int64_t size;  // -1: any
};
constexpr TensorSpec kInputs[] = {
    {"text_input", "BYTES", inference::TYPE_STRING, 1},
    {"input_ids", "INT64", inference::TYPE_INT64, -1},
    {"stream", "BOOL", inference::TYPE_BOOL, 1},
    {"streaming", "BOOL", inference::TYPE_BOOL, 1},
    {"sampling_parameters", "BYTES", inference::TYPE_STRING, 1},
    {"exclude_input_in_output", "BOOL", inference::TYPE_BOOL, 1},
};
constexpr TensorSpec kOutputs[] = {
    {"text_output", "BYTES", inference::TYPE_STRING, 1},
    {"output_ids", "INT64", inference::TYPE_INT64, -1},
    {"logprobs", "FP32", inference::TYPE_FP32, -1},
    {"finish_reason", "BYTES", inference::TYPE_STRING, 1},
};

// A folder without a tokenizer has no text tensors.
bool IsText(const TensorSpec& spec) { return std::string_view(spec.name).substr(0, 5) == "text_"; }

absl::StatusOr<Json> ParameterJson(const inference::InferParameter& parameter,
                                   const std::string& name) {
  switch (parameter.parameter_choice_case()) {
    case inference::InferParameter::kBoolParam:
      return Json(parameter.bool_param());
    case inference::InferParameter::kInt64Param:
      return Json(parameter.int64_param());
    case inference::InferParameter::kUint64Param:
      return Json(parameter.uint64_param());
    case inference::InferParameter::kDoubleParam:
      return Json(parameter.double_param());
    case inference::InferParameter::kStringParam:
      return Json(parameter.string_param());
    case inference::InferParameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      StrCat("parameters: \"", name.substr(0, 64), "\" has no value"));
}

// Parameters of Triton's clients that concern its scheduler, not the tokens.
bool IsIgnoredParameter(std::string_view name) {
  return name.substr(0, 9) == "sequence_" || name == "priority" || name.substr(0, 7) == "triton_";
}

absl::Status DecodeParameters(const inference::ModelInferRequest& message, InferCall& call) {
  if (message.parameters_size() > kMaxParameters) {
    return absl::InvalidArgumentError(StrCat("parameters: got ", message.parameters_size(),
                                             ", expected at most ", kMaxParameters));
  }
  Json sampling = Json::object();
  for (const auto& [name, parameter] : message.parameters()) {
    if (name == kEmptyFinalResponse) {
      if (!parameter.has_bool_param()) {
        return absl::InvalidArgumentError(StrCat("parameters: ", name, " is not a bool_param"));
      }
      call.empty_final_response = parameter.bool_param();
    } else if (name == "timeout") {
      // Microseconds, as Triton's clients send it.
      if (!parameter.has_uint64_param() && !parameter.has_int64_param()) {
        return absl::InvalidArgumentError("parameters: timeout is not an int64_param");
      }
      const int64_t us = parameter.has_uint64_param()
                             ? static_cast<int64_t>(
                                   std::min<uint64_t>(parameter.uint64_param(), uint64_t{1} << 62))
                             : parameter.int64_param();
      if (us < 0) return absl::InvalidArgumentError("parameters: timeout is negative");
      if (us > 0) call.request.deadline = absl::Now() + absl::Microseconds(us);
    } else if (!IsIgnoredParameter(name)) {
      MOESAIC_ASSIGN_OR_RETURN(sampling[name], ParameterJson(parameter, name));
    }
  }
  // A parameter has a type of its own, so text is no number here.
  return ApplySamplingJson(sampling, "parameters", /*text_numbers=*/false, call.request);
}

absl::Status DecodeInputs(const InferInputs& inputs, InferCall& call) {
  for (const std::string_view name : inputs.names()) {
    const bool known = std::any_of(std::begin(kInputs), std::end(kInputs),
                                   [name](const TensorSpec& spec) { return name == spec.name; });
    if (!known) {
      return absl::InvalidArgumentError(
          StrCat("unknown input tensor \"", name.substr(0, 64), "\""));
    }
  }
  if (inputs.Has("text_input") == inputs.Has("input_ids")) {
    return absl::InvalidArgumentError("inputs: expected text_input or input_ids, and not both");
  }
  if (inputs.Has("text_input")) {
    MOESAIC_ASSIGN_OR_RETURN(const std::string_view text, inputs.Bytes("text_input"));
    call.request.prompt = std::string(text);
  } else {
    MOESAIC_ASSIGN_OR_RETURN(call.request.prompt, inputs.Ids("input_ids"));
  }
  for (const char* name : {"stream", "streaming"}) {
    if (!inputs.Has(name)) continue;
    MOESAIC_ASSIGN_OR_RETURN(call.stream, inputs.Bool(name));
  }
  if (inputs.Has("exclude_input_in_output")) {
    MOESAIC_ASSIGN_OR_RETURN(call.exclude_input, inputs.Bool("exclude_input_in_output"));
  }
  if (inputs.Has("sampling_parameters")) {
    MOESAIC_ASSIGN_OR_RETURN(const std::string_view json, inputs.Bytes("sampling_parameters"));
    MOESAIC_RETURN_IF_ERROR(ParseSamplingJson(json, "sampling_parameters", call.request));
  }
  return absl::OkStatus();
}

absl::Status DecodeOutputs(const inference::ModelInferRequest& message,
                           bool has_tokenizer,
                           InferCall& call) {
  if (message.outputs_size() > kMaxOutputs) {
    return absl::InvalidArgumentError(
        StrCat("outputs: got ", message.outputs_size(), ", expected at most ", kMaxOutputs));
  }
  if (message.outputs_size() == 0) {
    call.text_output = has_tokenizer && call.request.detokenize;
    call.output_ids = call.finish_reason = true;
    call.logprobs = call.request.params.logprobs.has_value();
  }
  for (const auto& output : message.outputs()) {
    if (output.parameters().contains("shared_memory_region") ||
        output.parameters().contains("classification")) {
      return absl::InvalidArgumentError(
          StrCat("output \"", output.name().substr(0, 64),
                 "\": neither shared memory nor classification is supported"));
    }
    if (output.name() == "text_output") {
      call.text_output = true;
    } else if (output.name() == "output_ids") {
      call.output_ids = true;
    } else if (output.name() == "logprobs") {
      call.logprobs = true;
      // Asking for the tensor is asking for its values.
      if (!call.request.params.logprobs) call.request.params.logprobs = 0;
    } else if (output.name() == "finish_reason") {
      call.finish_reason = true;
    } else {
      return absl::InvalidArgumentError(
          StrCat("unknown output tensor \"", output.name().substr(0, 64), "\""));
    }
  }
  if (call.text_output && message.outputs_size() > 0) call.request.detokenize_required = true;
  return absl::OkStatus();
}

void AddOutput(inference::ModelInferResponse& message,
               const char* name,
               const char* datatype,
               int64_t size,
               std::string raw) {
  auto* output = message.add_outputs();
  output->set_name(name);
  output->set_datatype(datatype);
  output->add_shape(size);
  message.add_raw_output_contents(std::move(raw));
}

std::string RawText(std::string_view text) {
  const auto length = static_cast<uint32_t>(text.size());
  std::string raw(sizeof(length) + text.size(), '\0');
  std::memcpy(raw.data(), &length, sizeof(length));
  std::copy(text.begin(), text.end(), raw.begin() + sizeof(length));
  return raw;
}

const char* FinishReasonText(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    default:
      return "";
  }
}

}  // namespace

absl::Status CheckModelVersion(const std::string& version) {
  if (version.empty() || version == kModelVersion) return absl::OkStatus();
  return absl::NotFoundError(
      StrCat("unknown model version \"", version.substr(0, 64), "\"; there is \"1\""));
}

absl::StatusOr<InferCall> DecodeInferRequest(const inference::ModelInferRequest& message,
                                             const ServedModel& model) {
  MOESAIC_RETURN_IF_ERROR(CheckModelVersion(message.model_version()));
  InferCall call;
  call.id = message.id();
  call.request.model = message.model_name();
  call.request.client_id = message.id();
  call.request.params = model.defaults;
  MOESAIC_RETURN_IF_ERROR(DecodeParameters(message, call));
  MOESAIC_ASSIGN_OR_RETURN(const InferInputs inputs, InferInputs::Parse(message));
  MOESAIC_RETURN_IF_ERROR(DecodeInputs(inputs, call));
  MOESAIC_RETURN_IF_ERROR(DecodeOutputs(message, model.tokenizer != nullptr, call));
  if (call.request.params.prompt_logprobs) {
    return absl::InvalidArgumentError(
        "prompt_logprobs: there is no tensor for them; use moesaic.v1.Inference");
  }
  call.num_sequences = call.request.params.n;
  if (!call.exclude_input) {
    const auto* text = std::get_if<std::string>(&call.request.prompt);
    if (text == nullptr) {
      return absl::InvalidArgumentError("exclude_input_in_output: false needs text_input");
    }
    call.input_text = *text;
  }
  return call;
}

inference::ModelInferResponse EncodeInferResponse(const InferCall& call,
                                                  const std::string& model_name,
                                                  const SequenceDelta& delta,
                                                  const std::string& text_prefix) {
  inference::ModelInferResponse message;
  message.set_model_name(model_name);
  message.set_model_version(kModelVersion);
  message.set_id(call.id);
  if (call.num_sequences > 1) {
    (*message.mutable_parameters())[kSequenceIndex].set_int64_param(delta.index);
  }
  const auto size = static_cast<int64_t>(delta.tokens.size());
  if (call.text_output) {
    std::string text = text_prefix;
    text.append(delta.text);
    AddOutput(message, "text_output", "BYTES", 1, RawText(text));
  }
  if (call.output_ids) {
    std::string raw(delta.tokens.size() * sizeof(int64_t), '\0');
    for (size_t i = 0; i < delta.tokens.size(); ++i) {
      const int64_t id = delta.tokens[i].token;
      std::memcpy(raw.data() + i * sizeof(id), &id, sizeof(id));
    }
    AddOutput(message, "output_ids", "INT64", size, std::move(raw));
  }
  if (call.logprobs) {
    std::string raw(delta.tokens.size() * sizeof(float), '\0');
    for (size_t i = 0; i < delta.tokens.size(); ++i) {
      const float logprob = delta.tokens[i].chosen.logprob;
      std::memcpy(raw.data() + i * sizeof(logprob), &logprob, sizeof(logprob));
    }
    AddOutput(message, "logprobs", "FP32", size, std::move(raw));
  }
  if (call.finish_reason) {
    AddOutput(message, "finish_reason", "BYTES", 1, RawText(FinishReasonText(delta.finish_reason)));
  }
  return message;
}

void SetFinalResponse(inference::ModelInferResponse& message, bool is_final) {
  (*message.mutable_parameters())[kFinalResponse].set_bool_param(is_final);
}

inference::ModelMetadataResponse DescribeModel(const ServedModel& model) {
  inference::ModelMetadataResponse message;
  message.set_name(model.name);
  message.add_versions(std::string(kModelVersion));
  message.set_platform("moesaic");
  const auto describe = [&](const TensorSpec& spec, auto* tensor) {
    tensor->set_name(spec.name);
    tensor->set_datatype(spec.datatype);
    tensor->add_shape(spec.size);
  };
  for (const TensorSpec& spec : kInputs) {
    if (model.tokenizer != nullptr || !IsText(spec)) describe(spec, message.add_inputs());
  }
  for (const TensorSpec& spec : kOutputs) {
    if (model.tokenizer != nullptr || !IsText(spec)) describe(spec, message.add_outputs());
  }
  return message;
}

inference::ModelConfig DescribeModelConfig(const ServedModel& model) {
  inference::ModelConfig config;
  config.set_name(model.name);
  config.set_platform("moesaic");
  config.set_backend("moesaic");
  config.set_max_batch_size(0);
  const auto describe = [&](const TensorSpec& spec, auto* tensor) {
    tensor->set_name(spec.name);
    tensor->set_data_type(spec.config_type);
    tensor->add_dims(spec.size);
  };
  for (const TensorSpec& spec : kInputs) {
    if (model.tokenizer == nullptr && IsText(spec)) continue;
    inference::ModelInput* input = config.add_input();
    describe(spec, input);
    input->set_optional(true);
  }
  for (const TensorSpec& spec : kOutputs) {
    if (model.tokenizer != nullptr || !IsText(spec)) describe(spec, config.add_output());
  }
  inference::ModelInstanceGroup* group = config.add_instance_group();
  group->set_name(model.name);
  group->set_kind(inference::ModelInstanceGroup::KIND_CPU);
  group->set_count(1);
  config.mutable_model_transaction_policy()->set_decoupled(true);
  (*config.mutable_parameters())["architecture"].set_string_value(model.config.architecture);
  (*config.mutable_parameters())["dtype"].set_string_value(std::string(DTypeName(model.dtype)));
  (*config.mutable_parameters())["max_model_len"].set_string_value(
      StrCat(model.engine->max_model_len()));
  return config;
}

}  // namespace moesaic
