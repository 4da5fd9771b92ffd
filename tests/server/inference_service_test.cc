// moesaic.v1 through a real channel: covers generate_reactor.cc, inference_service.cc,
// grpc_server.cc, sampling_proto.cc, stream_waker.cc, request_statistics.cc and server.cc.
#include "server/inference_service.h"

#include <gmock/gmock.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include "absl/time/clock.h"
#include "proto/grpc/health/v1/health.grpc.pb.h"
#include "server/health_check.h"
#include "tests/server/overload.h"
#include "tests/server/server_fixture.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

struct Answer {
  grpc::Status status;
  std::string text;
  std::vector<int32_t> ids;
  std::vector<v1::GenerateResponse> messages;
};

class InferenceServiceTest : public ServerFixture {
 protected:
  void Start(ServerConfig config = {}) {
    StartServer(config);
    stub_ = v1::Inference::NewStub(channel_);
  }

  static v1::GenerateRequest Prompt(const std::string& text, int32_t max_tokens) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_sampling()->set_max_tokens(max_tokens);
    return request;
  }

  Answer Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    return Generate(request, context);
  }
  Answer Generate(const v1::GenerateRequest& request, grpc::ClientContext& context) {
    Answer answer;
    const auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
      answer.text += message.text();
      answer.ids.insert(answer.ids.end(), message.token_ids().begin(), message.token_ids().end());
      answer.messages.push_back(message);
    }
    answer.status = reader->Finish();
    return answer;
  }
  void AwaitIdle() {
    while (engine_->load().running > 0) absl::SleepFor(absl::Milliseconds(1));
  }

  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(InferenceServiceTest, StreamsTextIdsAndUsage) {
  Start();
  v1::GenerateRequest request = Prompt("abc", 7);
  request.set_request_id("mine");
  const Answer answer = Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.text, "abcabca");
  EXPECT_EQ(answer.ids.size(), 7u);
  const v1::GenerateResponse& last = answer.messages.back();
  EXPECT_EQ(last.request_id(), "mine");
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(last.usage().prompt_tokens(), 3);
  EXPECT_EQ(last.usage().completion_tokens(), 7);
}

TEST_F(InferenceServiceTest, AnswersIdsWithSequencesLogprobsAndStopReason) {
  Start();
  v1::GenerateRequest request;
  for (const int32_t id : {'a', 'b', 'x', 'c'}) request.mutable_token_ids()->add_ids(id);
  v1::SamplingParams& sampling = *request.mutable_sampling();
  sampling.set_max_tokens(20);
  sampling.set_n(2);
  sampling.set_logprobs(1);
  sampling.set_prompt_logprobs(0);
  sampling.add_stop("xc");
  const Answer answer = Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.messages.front().prompt_logprobs_size(), 3);
  std::string texts[2];
  for (const auto& message : answer.messages) {
    texts[message.index()] += message.text();
    EXPECT_EQ(message.logprobs_size(), message.token_ids_size());
    if (message.has_usage()) {
      EXPECT_EQ(message.finish_reason(), v1::FINISH_REASON_STOP);
      EXPECT_EQ(message.stop_string(), "xc");
      EXPECT_EQ(message.usage().completion_tokens(), 4);
    }
  }
  EXPECT_EQ(texts[0], "ab");
  EXPECT_EQ(texts[1], "ab");
}

TEST_F(InferenceServiceTest, RefusesBadRequestsAndGoesOn) {
  ServerConfig config;
  config.max_receive_message_bytes = 64 << 10;
  Start(config);
  v1::GenerateRequest request;
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request = Prompt("hi", 0);
  EXPECT_THAT(Generate(request).status.error_message(), HasSubstr("max_tokens"));
  request = Prompt("hi", 2000);
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request = Prompt("hi", 1);
  request.set_model("other");
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::NOT_FOUND);
  request = Prompt("hi", 1);
  request.mutable_sampling()->set_top_p(-1);
  EXPECT_THAT(Generate(request).status.error_message(), HasSubstr("top_p"));
  request = Prompt(std::string(100 << 10, 'a'), 1);
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Generate(Prompt("hi", 1)).status.ok());
}

TEST_F(InferenceServiceTest, OverloadRefusesExactlyWhatDoesNotFit) {
#ifdef __SANITIZE_THREAD__
  constexpr int kStreams = 100;  // a thousand take minutes under ThreadSanitizer
  constexpr int kQueue = 16;
#else
  constexpr int kStreams = 1000;
  constexpr int kQueue = 256;
#endif
  ServerConfig config;
  config.max_sequences = 16;
  config.max_queue = kQueue;
  Start(config);
  constexpr int kAccepted = 16 + kQueue;
  const OverloadResult result =
      Overload(*stub_, *engine_, Prompt("abc", 3), kStreams, kStreams - kAccepted);
  EXPECT_EQ(result.accepted, kAccepted);
  EXPECT_EQ(result.refused, kStreams - kAccepted);
  EXPECT_EQ(result.otherwise, 0);
}

TEST_F(InferenceServiceTest, AClientThatLeavesFreesItsSequence) {
  ServerConfig config;
  config.max_stream_pending_bytes = int64_t{1} << 30;
  StartServer(config, 100000000);
  stub_ = v1::Inference::NewStub(channel_);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Prompt("abc", 90000000));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitIdle();
}

TEST_F(InferenceServiceTest, AWaitingRequestCanBeCancelledToo) {
  Start();
  engine_->SetHeld(true);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Prompt("abc", 5));
  while (engine_->load().running == 0) absl::SleepFor(absl::Milliseconds(1));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitIdle();
}

TEST_F(InferenceServiceTest, ASlowReaderLosesItsStreamNotTheServer) {
  ServerConfig config;
  config.max_stream_pending_bytes = 64 << 10;
  StartServer(config, 100000000);
  stub_ = v1::Inference::NewStub(channel_);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Prompt("abc", 90000000));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  std::string text = message.text();
  // The sequence ends though nobody reads on; flow control and the stream's bound hold the rest.
  AwaitIdle();
  while (reader->Read(&message)) text += message.text();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(text.substr(0, 6), "abcabc");
  EXPECT_TRUE(Generate(Prompt("hi", 2)).status.ok());
}

TEST_F(InferenceServiceTest, AReaderThatNeverReadsAgainIsCutOff) {
  ServerConfig config;
  config.write_timeout = absl::Milliseconds(20);
  config.max_stream_pending_bytes = int64_t{1} << 30;
  StartServer(config, 100000000);
  stub_ = v1::Inference::NewStub(channel_);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Prompt("abc", 90000000));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  AwaitIdle();
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(InferenceServiceTest, TheClientsDeadlineEndsTheRequest) {
  Start();
  engine_->SetHeld(true);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  const Answer answer = Generate(Prompt("abc", 5), context);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  AwaitIdle();
}

TEST_F(InferenceServiceTest, TokenizesAndDetokenizes) {
  Start();
  v1::TokenizeRequest tokenize;
  tokenize.set_text("h\xC3\xA9");
  v1::TokenizeResponse tokens;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Tokenize(&context, tokenize, &tokens).ok());
  EXPECT_THAT(tokens.ids(), testing::ElementsAre('h', 0xC3, 0xA9));
  EXPECT_EQ(tokens.tokens_size(), 3);

  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_ids() = tokens.ids();
  v1::DetokenizeResponse text;
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->Detokenize(&second, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "h\xC3\xA9");

  detokenize.add_ids(1000);
  grpc::ClientContext third;
  EXPECT_EQ(stub_->Detokenize(&third, detokenize, &text).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(InferenceServiceTest, DescribesModelAndLoad) {
  Start();
  v1::GetModelInfoResponse info;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.model(), "fake");
  EXPECT_EQ(info.shape().vocab_size(), 257);
  EXPECT_EQ(info.limits().max_model_len(), 1000);
  EXPECT_EQ(info.limits().max_sequences(), 64);
  EXPECT_EQ(info.eos_token_ids(0), 256);
  EXPECT_TRUE(info.has_tokenizer());
  v1::GetLoadResponse load;
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->GetLoad(&second, {}, &load).ok());
  EXPECT_EQ(load.max_queue(), 256);
  EXPECT_FALSE(load.draining());
}

TEST_F(InferenceServiceTest, HealthFollowsTheModelAndTheDrain) {
  ServerConfig config;
  config.grpc_port = 0;
  config.metrics_port = 0;
  auto server = Server::Start(config);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT(std::string(AskHealth("127.0.0.1", (*server)->grpc_port()).message()),
              HasSubstr("NOT_SERVING"));
  ASSERT_TRUE((*server)->Serve(MakeFakeModel(1, 1, 10)).ok());
  EXPECT_TRUE(AskHealth("0.0.0.0", (*server)->grpc_port()).ok());
  const auto channel = grpc::CreateChannel(StrCat("127.0.0.1:", (*server)->grpc_port()),
                                           grpc::InsecureChannelCredentials());
  const auto stub = grpc::health::v1::Health::NewStub(channel);
  for (const char* service : {"moesaic.v1.Inference", "inference.GRPCInferenceService"}) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse response;
    ASSERT_TRUE(stub->Check(&context, request, &response).ok()) << service;
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  }
  const int32_t port = (*server)->grpc_port();
  (*server)->Shutdown();
  EXPECT_FALSE(AskHealth("127.0.0.1", port).ok());
}

TEST_F(InferenceServiceTest, DrainingLetsRunningRequestsEnd) {
  Start();
  engine_->SetHeld(true);
  std::thread client([this] {
    const Answer answer = Generate(Prompt("abc", 4));
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.text, "abca");
  });
  while (engine_->load().running == 0) absl::SleepFor(absl::Milliseconds(1));
  std::thread shutdown([this] { server_->Shutdown(); });
  while (!server_->admission().draining()) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(Generate(Prompt("no", 1)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  engine_->SetHeld(false);
  client.join();
  shutdown.join();
}

TEST_F(InferenceServiceTest, AfterTheDrainTimeoutTheRestIsCancelled) {
  ServerConfig config;
  config.drain_timeout = absl::Milliseconds(10);
  Start(config);
  engine_->SetHeld(true);
  std::thread client([this] {
    EXPECT_EQ(Generate(Prompt("abc", 4)).status.error_code(), grpc::StatusCode::CANCELLED);
  });
  while (engine_->load().running == 0) absl::SleepFor(absl::Milliseconds(1));
  server_->Shutdown();
  client.join();
}

TEST_F(InferenceServiceTest, WritesThePortFileOnceItServes) {
  ServerConfig config;
  config.port_file = testing::TempDir() + "/moesaic_ports";
  std::remove(config.port_file.c_str());
  Start(config);
  std::ifstream file(config.port_file);
  std::string grpc_line, metrics_line;
  ASSERT_TRUE(file >> grpc_line >> metrics_line);
  EXPECT_EQ(grpc_line, StrCat("grpc=", server_->grpc_port()));
  EXPECT_EQ(metrics_line, StrCat("metrics=", server_->metrics_port()));
}

TEST_F(InferenceServiceTest, AnUnwritablePortFileIsAnErrorBeforeAnythingStarts) {
  ServerConfig config;
  config.grpc_port = 0;
  config.metrics_port = 0;
  for (const char* file : {"/no-such-folder/ports", "/proc"}) {
    config.port_file = file;
    const absl::Status status = Server::Start(config).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr("--port-file"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(file));
  }
}

TEST_F(InferenceServiceTest, TheClientsRequestIdComesBack) {
  Start();
  for (const v1::GenerateRequest& request : {Prompt("abc", 2), Prompt("", 2)}) {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", "mine-7");
    Generate(request, context);
    const auto& metadata = context.GetServerInitialMetadata();
    const auto found = metadata.find("x-request-id");
    ASSERT_NE(found, metadata.end());
    EXPECT_EQ(std::string(found->second.data(), found->second.size()), "mine-7");
  }
  grpc::ClientContext context;
  Generate(Prompt("abc", 2), context);
  EXPECT_EQ(context.GetServerInitialMetadata().count("x-request-id"), 0u);
}

TEST_F(InferenceServiceTest, AMissingPromptIsToldTheLimits) {
  Start();
  v1::GenerateRequest request;
  const Answer answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("text or token ids of 1 to 999"));
}

TEST_F(InferenceServiceTest, ATakenPortIsAnError) {
  Start();
  ServerConfig config;
  config.grpc_port = server_->grpc_port();
  config.metrics_port = 0;
  EXPECT_EQ(Server::Start(config).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace moesaic
