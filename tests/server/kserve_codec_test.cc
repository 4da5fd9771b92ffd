// Covers server/kserve_codec.cc and server/kserve_tensors.cc.
#include "server/kserve_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "absl/time/clock.h"
#include "tests/server/fake_engine.h"

namespace moesaic {
namespace {

using inference::ModelInferRequest;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Raw(std::string_view text) {
  const auto length = static_cast<uint32_t>(text.size());
  return std::string(reinterpret_cast<const char*>(&length), 4) + std::string(text);
}

ModelInferRequest::InferInputTensor* AddInput(ModelInferRequest& request,
                                              const char* name,
                                              const char* datatype,
                                              int64_t size = 1) {
  auto* tensor = request.add_inputs();
  tensor->set_name(name);
  tensor->set_datatype(datatype);
  tensor->add_shape(size);
  return tensor;
}

void AddRaw(ModelInferRequest& request,
            const char* name,
            const char* datatype,
            const std::string& raw,
            int64_t size = 1) {
  AddInput(request, name, datatype, size);
  request.add_raw_input_contents(raw);
}

class KserveCodecTest : public testing::Test {
 protected:
  void ExpectInvalid(const ModelInferRequest& request, const char* message) {
    const auto call = DecodeInferRequest(request, model_);
    EXPECT_EQ(call.status().code(), absl::StatusCode::kInvalidArgument) << call.status();
    EXPECT_THAT(std::string(call.status().message()), HasSubstr(message));
  }

  const ServedModel model_ = MakeFakeModel(1, 1, 100);
};

TEST_F(KserveCodecTest, DecodesRawTensors) {
  ModelInferRequest request;
  request.set_id("seven");
  AddRaw(request, "text_input", "BYTES", Raw("hi"));
  AddRaw(request, "stream", "BOOL", std::string(1, '\1'));
  AddRaw(request, "sampling_parameters", "BYTES", Raw(R"({"max_tokens": 5, "seed": 3})"));
  AddRaw(request, "exclude_input_in_output", "BOOL", std::string(1, '\0'));
  (*request.mutable_parameters())["triton_enable_empty_final_response"].set_bool_param(true);
  (*request.mutable_parameters())["max_tokens"].set_int64_param(9);
  (*request.mutable_parameters())["temperature"].set_double_param(0.5);
  const auto call = DecodeInferRequest(request, model_);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(std::get<std::string>(call->request.prompt), "hi");
  EXPECT_EQ(call->id, "seven");
  EXPECT_TRUE(call->stream);
  EXPECT_EQ(call->request.params.max_tokens, 5);  // the tensor wins over the parameter
  EXPECT_EQ(call->request.params.temperature, 0.5f);
  EXPECT_EQ(call->input_text, "hi");
  EXPECT_TRUE(call->empty_final_response);
  EXPECT_TRUE(call->text_output && call->output_ids && call->finish_reason);
  EXPECT_FALSE(call->logprobs);
}

TEST_F(KserveCodecTest, DecodesTypedTensors) {
  ModelInferRequest request;
  for (const int64_t id : {1, 2, 3}) {
    if (request.inputs_size() == 0) AddInput(request, "input_ids", "INT64", 3);
    request.mutable_inputs(0)->mutable_contents()->add_int64_contents(id);
  }
  AddInput(request, "streaming", "BOOL")->mutable_contents()->add_bool_contents(true);
  AddInput(request, "sampling_parameters", "BYTES")
      ->mutable_contents()
      ->add_bytes_contents(R"({"logprobs": 0})");
  const auto call = DecodeInferRequest(request, model_);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_THAT(std::get<std::vector<int32_t>>(call->request.prompt), ElementsAre(1, 2, 3));
  EXPECT_TRUE(call->stream);
  EXPECT_TRUE(call->logprobs);
}

TEST_F(KserveCodecTest, DecodesRawIdsOfBothWidths) {
  const int64_t wide[] = {7, 8};
  ModelInferRequest request;
  AddRaw(request, "input_ids", "INT64", std::string(reinterpret_cast<const char*>(wide), 16), 2);
  EXPECT_THAT(std::get<std::vector<int32_t>>(DecodeInferRequest(request, model_)->request.prompt),
              ElementsAre(7, 8));
  const int32_t narrow[] = {7, 8};
  ModelInferRequest other;
  AddRaw(other, "input_ids", "INT32", std::string(reinterpret_cast<const char*>(narrow), 8), 2);
  EXPECT_THAT(std::get<std::vector<int32_t>>(DecodeInferRequest(other, model_)->request.prompt),
              ElementsAre(7, 8));
}

TEST_F(KserveCodecTest, NamesTensorAndOffsetOfInvalidUtf8) {
  ModelInferRequest request;
  AddRaw(request, "text_input", "BYTES", Raw("abc\xff"));
  ExpectInvalid(request, "\"text_input\": invalid UTF-8 at byte offset 3");
  ModelInferRequest typed;
  AddInput(typed, "text_input", "BYTES")->mutable_contents()->add_bytes_contents("\xc3");
  ExpectInvalid(typed, "\"text_input\": invalid UTF-8 at byte offset 0");
}

TEST_F(KserveCodecTest, RefusesMalformedData) {
  const int64_t id = 5;
  const std::string raw_id(reinterpret_cast<const char*>(&id), 8);
  const auto with = [](const char* name, const char* datatype, const std::string& raw,
                       int64_t size = 1) {
    ModelInferRequest request;
    AddRaw(request, name, datatype, raw, size);
    return request;
  };
  ExpectInvalid(with("text_input", "BYTES", "ab"), "4-byte length");
  ExpectInvalid(with("text_input", "BYTES", std::string("\xff\xff\xff\xff", 4) + "ab"), "length");
  ExpectInvalid(with("text_input", "BYTES", Raw("a") + Raw("b"), 2), "2 elements");
  ExpectInvalid(with("text_input", "FP32", Raw("a")), "datatype BYTES");
  ExpectInvalid(with("input_ids", "INT64", raw_id, 2), "8 bytes of data for 2 elements");
  ExpectInvalid(with("input_ids", "INT64", raw_id, -1), "shape");
  ExpectInvalid(with("input_ids", "INT64", raw_id, INT64_MAX), "bytes of data");
  ExpectInvalid(with("input_ids", "FP64", raw_id), "INT64 or INT32");
  ExpectInvalid(with("input_ids", "INT64", std::string(8, '\xff')), "token id -1");
  ExpectInvalid(with("mystery", "INT64", raw_id), "unknown input tensor \"mystery\"");
  ModelInferRequest huge = with("input_ids", "INT64", raw_id, INT64_MAX);
  huge.mutable_inputs(0)->add_shape(INT64_MAX);
  ExpectInvalid(huge, "too large");
  ModelInferRequest shapeless = with("input_ids", "INT64", raw_id);
  shapeless.mutable_inputs(0)->clear_shape();
  ExpectInvalid(shapeless, "0 dimensions");
  ExpectInvalid(ModelInferRequest(), "text_input or input_ids");
}

TEST_F(KserveCodecTest, RefusesMixedRawAndTypedData) {
  ModelInferRequest request;
  AddRaw(request, "text_input", "BYTES", Raw("hi"));
  AddInput(request, "stream", "BOOL")->mutable_contents()->add_bool_contents(true);
  ExpectInvalid(request, "mixes typed contents and raw_input_contents");
  ModelInferRequest stray;
  auto* contents = AddInput(stray, "text_input", "BYTES")->mutable_contents();
  contents->add_bytes_contents("hi");
  contents->add_int_contents(1);
  ExpectInvalid(stray, "\"text_input\": its contents hold values of more than one type");
  ModelInferRequest missing;
  AddRaw(missing, "text_input", "BYTES", Raw("hi"));
  AddInput(missing, "stream", "BOOL");
  ExpectInvalid(missing, "got 1 for 2 inputs");
}

TEST_F(KserveCodecTest, RefusesWhatItDoesNotOffer) {
  ModelInferRequest request;
  AddRaw(request, "text_input", "BYTES", Raw("hi"));
  ModelInferRequest both = request;
  AddRaw(both, "input_ids", "INT64", std::string(8, '\0'));
  ExpectInvalid(both, "not both");
  ModelInferRequest twice = request;
  AddRaw(twice, "text_input", "BYTES", Raw("hi"));
  ExpectInvalid(twice, "given twice");
  ModelInferRequest shared = request;
  (*shared.mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("x");
  ExpectInvalid(shared, "shared memory");
  ModelInferRequest output = request;
  output.add_outputs()->set_name("mystery");
  ExpectInvalid(output, "unknown output tensor");
  ModelInferRequest parameter = request;
  (*parameter.mutable_parameters())["max_token"].set_int64_param(1);
  ExpectInvalid(parameter, "max_token");
  ModelInferRequest text = request;
  (*text.mutable_parameters())["max_tokens"].set_string_param("5");
  ExpectInvalid(text, "\"max_tokens\": expected a number or a boolean, got a string");
  ModelInferRequest stop = request;
  (*stop.mutable_parameters())["stop"].set_string_param("5");
  EXPECT_TRUE(DecodeInferRequest(stop, model_).ok());
  ModelInferRequest empty_final = request;
  (*empty_final.mutable_parameters())["triton_enable_empty_final_response"].set_int64_param(1);
  ExpectInvalid(empty_final, "triton_enable_empty_final_response is not a bool_param");
  ModelInferRequest timeout = request;
  (*timeout.mutable_parameters())["timeout"].set_string_param("5");
  ExpectInvalid(timeout, "timeout is not an int64_param");
  ModelInferRequest prompt = request;
  (*prompt.mutable_parameters())["prompt_logprobs"].set_int64_param(1);
  ExpectInvalid(prompt, "prompt_logprobs");
  ModelInferRequest version = request;
  version.set_model_version("2");
  EXPECT_EQ(DecodeInferRequest(version, model_).status().code(), absl::StatusCode::kNotFound);
  ModelInferRequest crowd;
  for (int i = 0; i < 20; ++i) AddInput(crowd, "text_input", "BYTES");
  ExpectInvalid(crowd, "20 tensors");
}

TEST_F(KserveCodecTest, TimeoutBecomesADeadline) {
  ModelInferRequest request;
  AddRaw(request, "text_input", "BYTES", Raw("hi"));
  (*request.mutable_parameters())["timeout"].set_int64_param(1000000);
  const absl::Time before = absl::Now();
  const auto call = DecodeInferRequest(request, model_);
  ASSERT_TRUE(call.ok());
  EXPECT_GE(call->request.deadline, before + absl::Seconds(1));
  EXPECT_LT(call->request.deadline, absl::InfiniteFuture());
}

TEST_F(KserveCodecTest, AnswersRawInTheOrderOfTheOutputs) {
  InferCall call;
  call.id = "seven";
  call.text_output = call.output_ids = call.logprobs = call.finish_reason = true;
  SequenceDelta delta;
  delta.text = "xy";
  delta.tokens = {{.token = 3, .chosen = {.token = 3, .logprob = -0.5f, .rank = 1}, .top = {}}};
  delta.finish_reason = FinishReason::kLength;
  inference::ModelInferResponse response = EncodeInferResponse(call, "m", delta, ">");
  SetFinalResponse(response, true);
  EXPECT_EQ(response.id(), "seven");
  EXPECT_EQ(response.model_version(), "1");
  ASSERT_EQ(response.outputs_size(), 4);
  ASSERT_EQ(response.raw_output_contents_size(), 4);
  EXPECT_EQ(response.outputs(0).name(), "text_output");
  EXPECT_EQ(response.raw_output_contents(0), Raw(">xy"));
  int64_t id = 0;
  std::memcpy(&id, response.raw_output_contents(1).data(), sizeof(id));
  EXPECT_EQ(id, 3);
  float logprob = 0;
  std::memcpy(&logprob, response.raw_output_contents(2).data(), sizeof(logprob));
  EXPECT_EQ(logprob, -0.5f);
  EXPECT_EQ(response.raw_output_contents(3), Raw("length"));
  for (const auto& output : response.outputs()) EXPECT_FALSE(output.has_contents());
  EXPECT_TRUE(response.parameters().at("triton_final_response").bool_param());
}

TEST_F(KserveCodecTest, MetadataAndConfigNameTheSameTensors) {
  const auto metadata = DescribeModel(model_);
  const auto config = DescribeModelConfig(model_);
  ASSERT_EQ(metadata.inputs_size(), config.input_size());
  for (int i = 0; i < metadata.inputs_size(); ++i) {
    EXPECT_EQ(metadata.inputs(i).name(), config.input(i).name());
    EXPECT_TRUE(config.input(i).optional());
  }
  ASSERT_EQ(metadata.outputs_size(), config.output_size());
  EXPECT_TRUE(config.model_transaction_policy().decoupled());
  EXPECT_EQ(config.max_batch_size(), 0);
}

TEST_F(KserveCodecTest, WithoutATokenizerThereAreNoTextTensors) {
  ServedModel model = MakeFakeModel(1, 1, 100);
  model.tokenizer = nullptr;
  const auto metadata = DescribeModel(model);
  for (const auto& input : metadata.inputs()) EXPECT_NE(input.name(), "text_input");
  const auto config = DescribeModelConfig(model);
  for (const auto& output : config.output()) EXPECT_NE(output.name(), "text_output");
  ModelInferRequest request;
  AddRaw(request, "input_ids", "INT64", std::string(8, '\0'));
  const auto call = DecodeInferRequest(request, model);
  ASSERT_TRUE(call.ok());
  EXPECT_FALSE(call->text_output);
}

}  // namespace
}  // namespace moesaic
