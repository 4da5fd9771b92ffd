// The Open Inference Protocol through a real channel: covers kserve_service.cc,
// kserve_infer_reactor.cc, kserve_stream_reactor.cc and grpc_status.cc.
#include "server/kserve_service.h"

#include <gmock/gmock.h>

#include <map>
#include <thread>

#include "absl/time/clock.h"
#include "tests/server/server_fixture.h"

namespace moesaic {
namespace {

using inference::GRPCInferenceService;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;
using testing::HasSubstr;

ModelInferRequest Prompt(const std::string& text, int32_t max_tokens, bool stream) {
  ModelInferRequest request;
  request.set_model_name("fake");
  auto* input = request.add_inputs();
  input->set_name("text_input");
  input->set_datatype("BYTES");
  input->add_shape(1);
  input->mutable_contents()->add_bytes_contents(text);
  auto* flag = request.add_inputs();
  flag->set_name("stream");
  flag->set_datatype("BOOL");
  flag->add_shape(1);
  flag->mutable_contents()->add_bool_contents(stream);
  (*request.mutable_parameters())["max_tokens"].set_int64_param(max_tokens);
  return request;
}

std::string Output(const ModelInferResponse& response, const std::string& name) {
  for (int i = 0; i < response.outputs_size(); ++i) {
    if (response.outputs(i).name() != name) continue;
    const std::string& raw = response.raw_output_contents(i);
    return response.outputs(i).datatype() == "BYTES" ? raw.substr(4) : raw;
  }
  return "(none)";
}

bool IsFinal(const ModelInferResponse& response) {
  const auto found = response.parameters().find("triton_final_response");
  return found != response.parameters().end() && found->second.bool_param();
}

class KserveServiceTest : public ServerFixture {
 protected:
  void Start(ServerConfig config = {}) {
    StartServer(config);
    stub_ = GRPCInferenceService::NewStub(channel_);
  }
  grpc::Status Infer(const ModelInferRequest& request, ModelInferResponse* response) {
    grpc::ClientContext context;
    return stub_->ModelInfer(&context, request, response);
  }
  // Sends the requests on one stream and returns all answers, by request id.
  std::map<std::string, std::vector<ModelStreamInferResponse>> Stream(
      const std::vector<ModelInferRequest>& requests,
      grpc::Status* status,
      bool grpc_error = false) {
    grpc::ClientContext context;
    if (grpc_error) context.AddMetadata("triton_grpc_error", "true");
    const auto stream = stub_->ModelStreamInfer(&context);
    for (const ModelInferRequest& request : requests) stream->Write(request);
    stream->WritesDone();
    std::map<std::string, std::vector<ModelStreamInferResponse>> answers;
    ModelStreamInferResponse answer;
    while (stream->Read(&answer)) answers[answer.infer_response().id()].push_back(answer);
    *status = stream->Finish();
    return answers;
  }

  std::unique_ptr<GRPCInferenceService::Stub> stub_;
};

TEST_F(KserveServiceTest, AnswersTheProbesAndDescriptions) {
  Start();
  {
    grpc::ClientContext context;
    inference::ServerLiveResponse response;
    ASSERT_TRUE(stub_->ServerLive(&context, {}, &response).ok());
    EXPECT_TRUE(response.live());
  }
  {
    grpc::ClientContext context;
    inference::ServerReadyResponse response;
    ASSERT_TRUE(stub_->ServerReady(&context, {}, &response).ok());
    EXPECT_TRUE(response.ready());
  }
  for (const char* name : {"fake", "other"}) {
    grpc::ClientContext context;
    inference::ModelReadyRequest request;
    request.set_name(name);
    inference::ModelReadyResponse response;
    ASSERT_TRUE(stub_->ModelReady(&context, request, &response).ok());
    EXPECT_EQ(response.ready(), std::string(name) == "fake");
  }
  {
    grpc::ClientContext context;
    inference::ServerMetadataResponse response;
    ASSERT_TRUE(stub_->ServerMetadata(&context, {}, &response).ok());
    EXPECT_EQ(response.name(), "moesaic");
    EXPECT_THAT(response.extensions(), testing::Contains("statistics"));
  }
  {
    grpc::ClientContext context;
    inference::RepositoryIndexResponse response;
    ASSERT_TRUE(stub_->RepositoryIndex(&context, {}, &response).ok());
    ASSERT_EQ(response.models_size(), 1);
    EXPECT_EQ(response.models(0).state(), "READY");
  }
  {
    grpc::ClientContext context;
    inference::ModelConfigRequest request;
    request.set_name("other");
    inference::ModelConfigResponse response;
    EXPECT_EQ(stub_->ModelConfig(&context, request, &response).error_code(),
              grpc::StatusCode::NOT_FOUND);
  }
  {
    grpc::ClientContext context;
    inference::ModelMetadataRequest request;
    request.set_name("fake");
    request.set_version("2");
    inference::ModelMetadataResponse response;
    EXPECT_EQ(stub_->ModelMetadata(&context, request, &response).error_code(),
              grpc::StatusCode::NOT_FOUND);
  }
}

TEST_F(KserveServiceTest, WhatIsNotOfferedIsUnimplemented) {
  Start();
  grpc::ClientContext load;
  inference::RepositoryModelLoadResponse loaded;
  const grpc::Status refused = stub_->RepositoryModelLoad(&load, {}, &loaded);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("RepositoryModelLoad: models are not loaded"));
  grpc::ClientContext shared;
  inference::SystemSharedMemoryRegisterResponse registered;
  EXPECT_EQ(stub_->SystemSharedMemoryRegister(&shared, {}, &registered).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  grpc::ClientContext status;
  inference::SystemSharedMemoryStatusResponse regions;
  ASSERT_TRUE(stub_->SystemSharedMemoryStatus(&status, {}, &regions).ok());
  EXPECT_EQ(regions.regions_size(), 0);
}

TEST_F(KserveServiceTest, InfersInOneAnswerAndCountsIt) {
  Start();
  ModelInferRequest request = Prompt("abc", 4, false);
  request.set_id("seven");
  ModelInferResponse response;
  ASSERT_TRUE(Infer(request, &response).ok());
  EXPECT_EQ(response.id(), "seven");
  EXPECT_EQ(Output(response, "text_output"), "abca");
  EXPECT_EQ(Output(response, "output_ids").size(), 4 * sizeof(int64_t));
  EXPECT_EQ(Output(response, "finish_reason"), "length");

  grpc::ClientContext context;
  inference::ModelStatisticsRequest ask;
  inference::ModelStatisticsResponse statistics;
  ASSERT_TRUE(stub_->ModelStatistics(&context, ask, &statistics).ok());
  ASSERT_EQ(statistics.model_stats_size(), 1);
  EXPECT_EQ(statistics.model_stats(0).inference_stats().success().count(), 1u);
  EXPECT_EQ(statistics.model_stats(0).inference_stats().queue().count(), 1u);
}

TEST_F(KserveServiceTest, TheClientsRequestIdComesBack) {
  Start();
  const auto echoed = [](const grpc::ClientContext& context) {
    const auto found = context.GetServerInitialMetadata().find("x-request-id");
    if (found == context.GetServerInitialMetadata().end()) return std::string("(none)");
    return std::string(found->second.data(), found->second.size());
  };
  grpc::ClientContext unary;
  unary.AddMetadata("x-request-id", "u-1");
  ModelInferResponse response;
  ASSERT_TRUE(stub_->ModelInfer(&unary, Prompt("abc", 2, false), &response).ok());
  EXPECT_EQ(echoed(unary), "u-1");

  grpc::ClientContext streaming;
  streaming.AddMetadata("x-request-id", "s-1");
  const auto stream = stub_->ModelStreamInfer(&streaming);
  stream->Write(Prompt("abc", 2, true));
  stream->WritesDone();
  ModelStreamInferResponse answer;
  while (stream->Read(&answer)) {
  }
  ASSERT_TRUE(stream->Finish().ok());
  EXPECT_EQ(echoed(streaming), "s-1");
}

TEST_F(KserveServiceTest, UnaryErrorsAreStatuses) {
  Start();
  ModelInferResponse response;
  const grpc::Status stream = Infer(Prompt("abc", 4, true), &response);
  EXPECT_EQ(stream.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(stream.error_message(), HasSubstr("ModelStreamInfer"));
  ModelInferRequest other = Prompt("abc", 4, false);
  other.set_model_name("other");
  EXPECT_EQ(Infer(other, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Infer(Prompt("abc", -4, false), &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Infer(Prompt("a\xff", 4, false), &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(Infer(Prompt("abc", 4, false), &response).ok());
}

TEST_F(KserveServiceTest, AUnaryDeadlineFreesTheEngine) {
  Start();
  engine_->SetHeld(true);
  ModelInferRequest request = Prompt("abc", 4, false);
  (*request.mutable_parameters())["timeout"].set_int64_param(20000);
  ModelInferResponse response;
  EXPECT_EQ(Infer(request, &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  while (engine_->load().running > 0) absl::SleepFor(absl::Milliseconds(1));
}

TEST_F(KserveServiceTest, StreamsAnswersOfSeveralRequestsAndMarksTheLast) {
  Start();
  std::vector<ModelInferRequest> requests;
  for (const char* id : {"one", "two"}) {
    requests.push_back(Prompt(id, 7, true));
    requests.back().set_id(id);
  }
  grpc::Status status;
  auto answers = Stream(requests, &status);
  ASSERT_TRUE(status.ok()) << status.error_message();
  for (const auto& [id, expected] : {std::pair{"one", "oneoneo"}, std::pair{"two", "twotwot"}}) {
    std::string text;
    const auto& list = answers[id];
    ASSERT_FALSE(list.empty());
    for (size_t i = 0; i < list.size(); ++i) {
      text += Output(list[i].infer_response(), "text_output");
      EXPECT_EQ(IsFinal(list[i].infer_response()), i + 1 == list.size());
    }
    EXPECT_EQ(text, expected);
    EXPECT_EQ(Output(list.back().infer_response(), "finish_reason"), "length");
  }
}

TEST_F(KserveServiceTest, AnEmptyFinalAnswerComesOnRequest) {
  Start();
  ModelInferRequest request = Prompt("abc", 4, true);
  request.set_id("r");
  (*request.mutable_parameters())["triton_enable_empty_final_response"].set_bool_param(true);
  grpc::Status status;
  auto answers = Stream({request}, &status)["r"];
  ASSERT_TRUE(status.ok());
  ASSERT_GE(answers.size(), 2u);
  EXPECT_TRUE(IsFinal(answers.back().infer_response()));
  EXPECT_EQ(answers.back().infer_response().outputs_size(), 0);
  for (size_t i = 0; i + 1 < answers.size(); ++i) {
    EXPECT_FALSE(IsFinal(answers[i].infer_response()));
  }
}

TEST_F(KserveServiceTest, WithoutStreamingARequestGetsOneAnswer) {
  Start();
  grpc::Status status;
  const auto answers = Stream({Prompt("abc", 6, false)}, &status)[""];
  ASSERT_TRUE(status.ok());
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(Output(answers[0].infer_response(), "text_output"), "abcabc");
  EXPECT_TRUE(IsFinal(answers[0].infer_response()));
}

TEST_F(KserveServiceTest, SequencesAreNumberedAndInputIsPrepended) {
  Start();
  ModelInferRequest request = Prompt("abc", 2, true);
  (*request.mutable_parameters())["n"].set_int64_param(2);
  auto* exclude = request.add_inputs();
  exclude->set_name("exclude_input_in_output");
  exclude->set_datatype("BOOL");
  exclude->add_shape(1);
  exclude->mutable_contents()->add_bool_contents(false);
  grpc::Status status;
  std::map<int64_t, std::string> texts;
  const auto answers = Stream({request}, &status)[""];
  for (const auto& answer : answers) {
    const ModelInferResponse& response = answer.infer_response();
    texts[response.parameters().at("sequence_index").int64_param()] +=
        Output(response, "text_output");
  }
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(texts[0], "abcab");
  EXPECT_EQ(texts[1], "abcab");
}

TEST_F(KserveServiceTest, AnErrorAnswersItsRequestAndTheStreamGoesOn) {
  Start();
  ModelInferRequest bad = Prompt("a\xff", 4, true);
  bad.set_id("bad");
  ModelInferRequest good = Prompt("abc", 4, true);
  good.set_id("good");
  grpc::Status status;
  auto answers = Stream({bad, good}, &status);
  EXPECT_TRUE(status.ok());
  ASSERT_EQ(answers["bad"].size(), 1u);
  EXPECT_THAT(answers["bad"][0].error_message(), HasSubstr("byte offset 1"));
  EXPECT_TRUE(IsFinal(answers["bad"][0].infer_response()));
  EXPECT_FALSE(answers["good"].empty());
}

TEST_F(KserveServiceTest, AnErrorEndsTheStreamWhenTheClientWantsStatuses) {
  Start();
  grpc::Status status;
  Stream({Prompt("a\xff", 4, true)}, &status, /*grpc_error=*/true);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(KserveServiceTest, AStreamThatIsCancelledFreesAllItsRequests) {
  StartServer({}, 100000000);
  stub_ = GRPCInferenceService::NewStub(channel_);
  grpc::ClientContext context;
  const auto stream = stub_->ModelStreamInfer(&context);
  for (int i = 0; i < 5; ++i) stream->Write(Prompt("abc", 90000000, true));
  ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  while (engine_->load().running > 0) absl::SleepFor(absl::Milliseconds(1));
}

TEST_F(KserveServiceTest, AClientThatNeverReadsCannotFillMemoryWithErrors) {
  Start();
  grpc::ClientContext context;
  const auto stream = stub_->ModelStreamInfer(&context);
  // Each of these is refused; the answers exceed what flow control lets through unread, and the
  // server then stops reading. Later all of them arrive.
  constexpr int kRequests = 2000;
  std::thread writer([&] {
    for (int i = 0; i < kRequests; ++i) stream->Write(Prompt("a\xff", 4, true));
    stream->WritesDone();
  });
  ModelStreamInferResponse answer;
  int answers = 0;
  while (stream->Read(&answer)) ++answers;
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(answers, kRequests);
}

}  // namespace
}  // namespace moesaic
