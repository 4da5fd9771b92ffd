#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "proto/inference/grpc_service.pb.h"
#include "server/generation_request.h"
#include "server/response_stream.h"
#include "server/served_model.h"

namespace moesaic {

// The tensors of the Open Inference Protocol v2 that a language model is asked and answers with.
// Decoding checks everything a client can get wrong: INVALID_ARGUMENT names tensor and byte offset.
//
//   text_input          BYTES [1]   the prompt, or
//   input_ids           INT64 [n]   its token ids (INT32 is taken too)
//   stream, streaming   BOOL  [1]   many answers, on ModelStreamInfer
//   sampling_parameters BYTES [1]   a JSON object with vLLM's names
//   exclude_input_in_output BOOL [1]  true unless said otherwise
//
//   text_output BYTES [1], output_ids INT64 [new], logprobs FP32 [new], finish_reason BYTES [1]
inline constexpr char kModelVersion[] = "1";

struct InferCall {
  GenerationRequest request;
  std::string id;
  bool stream = false;
  int32_t num_sequences = 1;
  bool exclude_input = true;
  // Triton: after the last answer comes an empty one that says so.
  bool empty_final_response = false;

  // Outputs wanted.
  bool text_output = false;
  bool output_ids = false;
  bool logprobs = false;
  bool finish_reason = false;

  // What exclude_input = false puts before the text.
  std::string input_text;
};

absl::StatusOr<InferCall> DecodeInferRequest(const inference::ModelInferRequest& message,
                                             const ServedModel& model);

// One sequence's delta as an answer; always raw. `text_prefix` goes before its text.
inference::ModelInferResponse EncodeInferResponse(const InferCall& call,
                                                  const std::string& model_name,
                                                  const SequenceDelta& delta,
                                                  const std::string& text_prefix);
// Says in the answer's parameters whether another follows.
void SetFinalResponse(inference::ModelInferResponse& message, bool is_final);

// NotFound for a version other than the one there is; empty means that one.
absl::Status CheckModelVersion(const std::string& version);

// What the server says of the model's tensors.
inference::ModelMetadataResponse DescribeModel(const ServedModel& model);
inference::ModelConfig DescribeModelConfig(const ServedModel& model);

}  // namespace moesaic
