#include "tools/bench/load_generator.h"

#include <algorithm>
#include <atomic>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"

namespace moesaic::bench {
namespace {

// Streams max_tokens messages, or fails prompts that begin with id 13; counts how many run at once.
class FakeInference final : public v1::Inference::Service {
 public:
  grpc::Status Generate(grpc::ServerContext*,
                        const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    const int running = ++running_;
    int most = most_running_.load();
    while (running > most && !most_running_.compare_exchange_weak(most, running)) {
    }
    const bool fail = request->has_token_ids() && request->token_ids().ids(0) == 13;
    if (!fail) {
      for (int i = 0; i < request->sampling().max_tokens(); ++i) {
        v1::GenerateResponse response;
        response.add_token_ids(i);
        if (i + 1 == request->sampling().max_tokens()) {
          response.mutable_usage()->set_prompt_tokens(
              request->has_text() ? 1 : request->token_ids().ids_size());
          response.mutable_usage()->set_completion_tokens(i + 1);
        }
        absl::SleepFor(absl::Milliseconds(1));
        writer->Write(response);
      }
    }
    --running_;
    return fail ? grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue is full")
                : grpc::Status::OK;
  }

  int most_running() const { return most_running_; }

 private:
  std::atomic<int> running_ = 0;
  std::atomic<int> most_running_ = 0;
};

class LoadGeneratorTest : public testing::Test {
 protected:
  LoadGeneratorTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                   grpc::InsecureChannelCredentials());
    stub_ = v1::Inference::NewStub(channel_);
  }

  FakeInference service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(LoadGeneratorTest, TracesEveryRequestWithinTheConcurrencyLimit) {
  std::vector<WorkItem> items;
  for (int i = 0; i < 12; ++i) items.push_back({std::vector<int32_t>{i == 5 ? 13 : 1, 2, 3}, 4});
  items.push_back({std::string("text"), 2});
  LoadOptions options;
  options.max_concurrency = 3;
  options.progress = false;
  const std::vector<RequestTrace> traces =
      RunLoad(*stub_, items, std::vector<double>(items.size(), 0.0), options);
  ASSERT_EQ(traces.size(), items.size());
  for (size_t i = 0; i < traces.size(); ++i) {
    if (i == 5) {
      EXPECT_FALSE(traces[i].ok);
      EXPECT_THAT(traces[i].error, testing::HasSubstr("queue is full"));
      continue;
    }
    EXPECT_TRUE(traces[i].ok) << traces[i].error;
    EXPECT_EQ(traces[i].output_tokens, items[i].max_tokens);
    EXPECT_EQ(traces[i].chunk_s.size(), static_cast<size_t>(items[i].max_tokens));
    EXPECT_GE(traces[i].chunk_s.front(), traces[i].sent_s);
    EXPECT_TRUE(std::is_sorted(traces[i].chunk_s.begin(), traces[i].chunk_s.end()));
  }
  EXPECT_LE(service_.most_running(), 3);
  EXPECT_EQ(traces[0].prompt_tokens, 3);
}

TEST_F(LoadGeneratorTest, NothingIsSentBeforeItsArrival) {
  const std::vector<WorkItem> items(3, {std::vector<int32_t>{1}, 1});
  const std::vector<double> arrivals = {0.0, 0.05, 0.1};
  LoadOptions options;
  options.progress = false;
  const std::vector<RequestTrace> traces = RunLoad(*stub_, items, arrivals, options);
  for (size_t i = 0; i < traces.size(); ++i) {
    EXPECT_GE(traces[i].sent_s, arrivals[i]);
    EXPECT_EQ(traces[i].intended_s, arrivals[i]);
  }
}

TEST_F(LoadGeneratorTest, AServerThatIsGoneIsAnErrorOfEachRequest) {
  server_->Shutdown();
  const std::vector<WorkItem> items(2, {std::vector<int32_t>{1}, 1});
  LoadOptions options;
  options.progress = false;
  options.timeout = absl::Seconds(5);
  for (const RequestTrace& trace : RunLoad(*stub_, items, std::vector<double>(2, 0.0), options)) {
    EXPECT_FALSE(trace.ok);
    EXPECT_THAT(trace.error, testing::HasSubstr("code 14"));
  }
}

}  // namespace
}  // namespace moesaic::bench
