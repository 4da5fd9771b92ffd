// The whole server with the demo model and the real engine.
#include <gmock/gmock.h>

#include <thread>

#include "absl/time/clock.h"
#include "proto/moesaic/v1/inference.grpc.pb.h"
#include "tests/server/overload.h"
#include "tests/server/server_fixture.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

class DemoModelTest : public ServerFixture {
 protected:
  void Start(ServerConfig config = {}) {
    config.model = MOESAIC_SOURCE_DIR "/models/wordnet-moe";
    config.grpc_port = 0;
    config.metrics_port = 0;
    config.drain_timeout = absl::Minutes(5);
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const absl::Status loaded = server_->LoadModel();
    ASSERT_TRUE(loaded.ok()) << loaded;
    channel_ = NewChannel();
    stub_ = v1::Inference::NewStub(channel_);
  }
  static v1::GenerateRequest Prompt(const std::string& text, int32_t max_tokens) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_sampling()->set_max_tokens(max_tokens);
    request.mutable_sampling()->set_ignore_eos(true);
    return request;
  }
  Engine& engine() { return *server_->model()->engine; }

  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(DemoModelTest, OverloadRefusesExactlyWhatDoesNotFitAndCompletesTheRest) {
  ServerConfig config;
  config.max_sequences = 16;
  config.max_queue = 256;
  Start(config);
  const OverloadResult result = Overload(*stub_, engine(), Prompt("violin", 3), 1000, 728);
  EXPECT_EQ(result.accepted, 272);
  EXPECT_EQ(result.refused, 728);
  EXPECT_EQ(result.otherwise, 0);
}

TEST_F(DemoModelTest, AClientThatLeavesFreesItsBlocks) {
  Start();
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Prompt("violin", 500));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_GT(engine().load().kv_blocks_used, 0);
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  while (engine().load().kv_blocks_used > 0) std::this_thread::yield();
  while (server_->metrics().Render().find("moesaic_kv_cache_usage_perc 0\n") == std::string::npos) {
    std::this_thread::yield();
  }
  EXPECT_THAT(server_->metrics().Render(), HasSubstr("moesaic_num_requests_running 0\n"));
}

TEST_F(DemoModelTest, TheSameSeedGivesTheSameTextWhateverElseRuns) {
  Start();
  const auto generate = [this](uint64_t seed) {
    v1::GenerateRequest request = Prompt("river", 24);
    request.mutable_sampling()->set_seed(seed);
    request.mutable_sampling()->set_temperature(1);
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    std::string text;
    v1::GenerateResponse message;
    while (reader->Read(&message)) text += message.text();
    EXPECT_TRUE(reader->Finish().ok());
    return text;
  };
  const std::string alone = generate(7);
  std::vector<std::string> together(4);
  std::vector<std::thread> clients;
  for (size_t i = 0; i < together.size(); ++i) {
    clients.emplace_back([&, i] { together[i] = generate(i == 0 ? 7 : 100 + i); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(together[0], alone);
  EXPECT_NE(together[1], alone);
}

}  // namespace
}  // namespace moesaic
