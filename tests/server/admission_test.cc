#include "server/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "tests/server/fake_engine.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

class SilentListener final : public StreamListener {
 public:
  void OnOutputReady(ResponseStream&) override {}
  void OnStalled(ResponseStream&) override {}
};

class AdmissionTest : public testing::Test {
 protected:
  AdmissionTest() {
    model_ = MakeFakeModel(2, 1, 100, &engine_);
    engine_->SetHeld(true);
  }
  ~AdmissionTest() override {
    for (const auto& request : admitted_) request.stream->Detach();
    model_.engine.reset();
  }

  static GenerationRequest Prompt(std::string text) {
    GenerationRequest request;
    request.prompt = std::move(text);
    return request;
  }
  absl::Status Submit(GenerationRequest request) {
    auto admitted = admission_.Submit(std::move(request), false, &listener_);
    if (!admitted.ok()) return admitted.status();
    admitted_.push_back(*std::move(admitted));
    return absl::OkStatus();
  }
  void ExpectRefused(GenerationRequest request, absl::StatusCode code, const char* message) {
    const absl::Status status = Submit(std::move(request));
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }

  SilentListener listener_;
  StreamWaker waker_;
  ServedModel model_;
  FakeEngine* engine_ = nullptr;
  Admission admission_{StreamOptions(), waker_};
  std::vector<AdmittedRequest> admitted_;
};

TEST_F(AdmissionTest, RefusesWhileLoadingAndWhileDraining) {
  ExpectRefused(Prompt("hi"), absl::StatusCode::kUnavailable, "loading");
  admission_.Serve(model_, 2, 1);
  EXPECT_TRUE(admission_.serving());
  EXPECT_TRUE(Submit(Prompt("hi")).ok());
  admission_.StartDraining();
  EXPECT_FALSE(admission_.serving());
  ExpectRefused(Prompt("hi"), absl::StatusCode::kUnavailable, "shutting down");
}

TEST_F(AdmissionTest, TakesAsManyAsRunAndWaitAndGivesPlacesBack) {
  admission_.Serve(model_, 2, 1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Submit(Prompt("hi")).ok());
  ExpectRefused(Prompt("hi"), absl::StatusCode::kResourceExhausted, "queue is full");
  engine_->SetHeld(false);
  engine_->Drain(absl::InfiniteFuture());
  // The places are free, though the engine itself takes no more.
  ExpectRefused(Prompt("hi"), absl::StatusCode::kUnavailable, "draining");
  EXPECT_FALSE(Submit(Prompt("")).ok());
}

TEST_F(AdmissionTest, ARefusedRequestKeepsNoPlace) {
  admission_.Serve(model_, 2, 1);
  for (int i = 0; i < 10; ++i) {
    ExpectRefused(Prompt(""), absl::StatusCode::kInvalidArgument,
                  "no tokens, expected text or token ids of 1 to 99");
  }
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Submit(Prompt("hi")).ok());
}

TEST_F(AdmissionTest, ChecksModelPromptAndParameters) {
  admission_.Serve(model_, 2, 1);
  GenerationRequest request = Prompt("hi");
  request.model = "other";
  ExpectRefused(request, absl::StatusCode::kNotFound, "\"fake\"");

  ExpectRefused(Prompt(std::string(100, 'a')), absl::StatusCode::kInvalidArgument, "100 tokens");
  ExpectRefused(Prompt("a\xff"), absl::StatusCode::kInvalidArgument, "UTF-8");

  request = Prompt("hi");
  request.prompt = std::vector<int32_t>{1, 257};
  ExpectRefused(request, absl::StatusCode::kInvalidArgument, "257 at position 1");
  request.prompt = std::vector<int32_t>{-1};
  ExpectRefused(request, absl::StatusCode::kInvalidArgument, "-1 at position 0");

  request = Prompt("hi");
  request.params.max_tokens = 99;
  request.max_tokens_given = true;
  ExpectRefused(request, absl::StatusCode::kInvalidArgument, "max_tokens: got 99");

  request = Prompt("hi");
  request.params.temperature = -1;
  ExpectRefused(request, absl::StatusCode::kInvalidArgument, "temperature");

  request = Prompt("hi");
  request.params.n = 1000000;
  ExpectRefused(request, absl::StatusCode::kInvalidArgument, "n: got 1000000");

  request = Prompt("hi");
  request.client_id = std::string(1000, 'x');
  ExpectRefused(request, absl::StatusCode::kInvalidArgument, "request id");

  request = Prompt("hi");
  request.deadline = absl::Now() - absl::Seconds(1);
  ExpectRefused(request, absl::StatusCode::kDeadlineExceeded, "deadline");

  request = Prompt("hi");
  request.detokenize = false;
  request.params.stop = {"x"};
  ExpectRefused(request, absl::StatusCode::kInvalidArgument, "detokenize");
}

TEST_F(AdmissionTest, ADefaultLengthGivesWayToALongPrompt) {
  GenerationRequest request;
  request.params.max_tokens = 64;
  ASSERT_TRUE(CheckRequest(model_, std::vector<int32_t>(90, 1), request).ok());
  EXPECT_EQ(request.params.max_tokens, 10);
}

TEST_F(AdmissionTest, WithoutATokenizerOnlyIdsAreServed) {
  model_.tokenizer = nullptr;
  admission_.Serve(model_, 2, 1);
  ExpectRefused(Prompt("hi"), absl::StatusCode::kFailedPrecondition, "token ids");
  GenerationRequest request;
  request.prompt = std::vector<int32_t>{1, 2};
  EXPECT_TRUE(Submit(request).ok());
  request.params.stop = {"x"};
  ExpectRefused(request, absl::StatusCode::kFailedPrecondition, "stop_token_ids");
  request.params.stop.clear();
  request.detokenize_required = true;
  ExpectRefused(request, absl::StatusCode::kFailedPrecondition, "no tokenizer");
}

}  // namespace
}  // namespace moesaic
