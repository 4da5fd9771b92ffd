#include "server/response_stream.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "absl/time/clock.h"
#include "server/stream_waker.h"
#include "tests/server/fake_engine.h"

namespace moesaic {
namespace {

using Verdict = TextSink::Verdict;

class CountingListener final : public StreamListener {
 public:
  void OnOutputReady(ResponseStream&) override { Count(ready_); }
  void OnStalled(ResponseStream&) override { Count(stalled_); }

  void AwaitReady() { Await(ready_); }
  void AwaitStalled() { Await(stalled_); }

 private:
  void Count(int& counter) {
    const std::lock_guard lock(mutex_);
    ++counter;
    changed_.notify_all();
  }
  void Await(const int& counter) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return counter > 0; });
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int ready_ = 0;
  int stalled_ = 0;
};

class ResponseStreamTest : public testing::Test {
 protected:
  std::shared_ptr<ResponseStream> Make(const SamplingParams& params,
                                       const StreamOptions& options = {}) {
    return std::make_shared<ResponseStream>(1, params, std::vector<int32_t>{ByteTokenizer::kEos},
                                            std::vector<int32_t>{'p'}, &tokenizer_, options, waker_,
                                            &listener_, [this] { ++generation_ends_; });
  }
  static Verdict Push(ResponseStream& stream, std::string_view text, int32_t sequence = 0) {
    Verdict verdict = Verdict::kContinue;
    for (const char c : text) {
      verdict = stream.OnToken(sequence,
                               {.token = static_cast<unsigned char>(c), .chosen = {}, .top = {}});
      if (verdict == Verdict::kStop) break;
    }
    stream.OnStepEnd();
    return verdict;
  }

  ByteTokenizer tokenizer_;
  CountingListener listener_;
  int generation_ends_ = 0;
  StreamWaker waker_{absl::Milliseconds(5)};
};

TEST_F(ResponseStreamTest, AnnouncesAStepAndMergesWhatIsNotTaken) {
  const auto stream = Make({});
  Push(*stream, "ab");
  listener_.AwaitReady();
  Push(*stream, "cd");
  StreamOutput output = stream->Take();
  ASSERT_EQ(output.deltas.size(), 1u);
  EXPECT_EQ(output.deltas[0].text, "abcd");
  EXPECT_EQ(output.deltas[0].tokens.size(), 4u);
  EXPECT_FALSE(output.ended);
  EXPECT_TRUE(stream->Take().deltas.empty());
  stream->Detach();
}

TEST_F(ResponseStreamTest, EndsWithReasonUsageAndStatus) {
  const auto stream = Make({});
  Push(*stream, "ab");
  stream->OnFinish(0, FinishReason::kLength,
                   {.prompt_tokens = 1, .cached_prompt_tokens = 0, .completion_tokens = 2});
  stream->OnEnd(absl::OkStatus());
  EXPECT_EQ(generation_ends_, 1);
  const StreamOutput output = stream->Take();
  ASSERT_EQ(output.deltas.size(), 1u);
  EXPECT_EQ(output.deltas[0].finish_reason, FinishReason::kLength);
  EXPECT_EQ(output.deltas[0].usage.completion_tokens, 2);
  EXPECT_TRUE(output.ended);
  EXPECT_TRUE(output.status.ok());
  stream->Detach();
}

TEST_F(ResponseStreamTest, NeverEmitsPartOfACharacter) {
  const auto stream = Make({});
  Push(*stream, "\xE2\x82");
  StreamOutput output = stream->Take();
  ASSERT_EQ(output.deltas.size(), 1u);
  EXPECT_EQ(output.deltas[0].text, "");
  EXPECT_EQ(output.deltas[0].tokens.size(), 2u);
  Push(*stream, "\xAC!");
  output = stream->Take();
  EXPECT_EQ(output.deltas[0].text, "\xE2\x82\xAC!");
  stream->Detach();
}

TEST_F(ResponseStreamTest, StopsAtAStopStringAcrossTokens) {
  SamplingParams params;
  params.stop = {"END"};
  const auto stream = Make(params);
  EXPECT_EQ(Push(*stream, "text EN"), Verdict::kContinue);
  EXPECT_EQ(stream->Take().deltas[0].text, "text ");
  EXPECT_EQ(Push(*stream, "D"), Verdict::kStop);
  stream->OnFinish(0, FinishReason::kStop, {.completion_tokens = 8});
  stream->OnEnd(absl::OkStatus());
  const StreamOutput output = stream->Take();
  EXPECT_EQ(output.deltas[0].text, "");
  EXPECT_EQ(output.deltas[0].finish_reason, FinishReason::kStop);
  EXPECT_EQ(std::get<std::string>(output.deltas[0].stop_reason), "END");
  EXPECT_EQ(output.deltas[0].usage.completion_tokens, 8);
  stream->Detach();
}

TEST_F(ResponseStreamTest, ReleasesHeldTextAtTheEnd) {
  SamplingParams params;
  params.stop = {"END"};
  const auto stream = Make(params);
  Push(*stream, "an EN");
  stream->OnFinish(0, FinishReason::kLength, {});
  stream->OnEnd(absl::OkStatus());
  EXPECT_EQ(stream->Take().deltas[0].text, "an EN");
  stream->Detach();
}

TEST_F(ResponseStreamTest, StopStringsBeginAfterMinTokens) {
  SamplingParams params;
  params.stop = {"a"};
  params.min_tokens = 3;
  params.max_tokens = 16;
  const auto stream = Make(params);
  EXPECT_EQ(Push(*stream, "aaab"), Verdict::kContinue);
  EXPECT_EQ(Push(*stream, "a"), Verdict::kStop);
  EXPECT_EQ(stream->Take().deltas[0].text, "aaab");
  stream->Detach();
}

TEST_F(ResponseStreamTest, AStopTokenIsAnIdButNoText) {
  SamplingParams params;
  params.stop_token_ids = {'x'};
  const auto stream = Make(params);
  Push(*stream, "abx");
  stream->OnFinish(0, FinishReason::kStop, {});
  const StreamOutput output = stream->Take();
  EXPECT_EQ(output.deltas[0].text, "ab");
  EXPECT_EQ(output.deltas[0].tokens.size(), 3u);
  EXPECT_EQ(std::get<int32_t>(output.deltas[0].stop_reason), 'x');
  stream->Detach();
}

TEST_F(ResponseStreamTest, SequencesOfOneRequestAreKeptApart) {
  SamplingParams params;
  params.n = 2;
  const auto stream = Make(params);
  Push(*stream, "left", 0);
  Push(*stream, "right", 1);
  const StreamOutput output = stream->Take();
  ASSERT_EQ(output.deltas.size(), 2u);
  EXPECT_EQ(output.deltas[0].text, "left");
  EXPECT_EQ(output.deltas[1].text, "right");
  EXPECT_EQ(output.deltas[1].index, 1);
  stream->Detach();
}

TEST_F(ResponseStreamTest, AWholeAnswerIsTakenOnlyAtTheEnd) {
  const auto stream = Make({}, {.whole = true});
  Push(*stream, "ab");
  EXPECT_TRUE(stream->Take().deltas.empty());
  stream->OnFinish(0, FinishReason::kLength, {});
  stream->OnEnd(absl::OkStatus());
  listener_.AwaitReady();
  EXPECT_EQ(stream->Take().deltas[0].text, "ab");
  stream->Detach();
}

TEST_F(ResponseStreamTest, TooMuchUnreadOutputEndsTheRequest) {
  const auto stream = Make({}, {.max_pending_bytes = 1000});
  Verdict verdict = Verdict::kContinue;
  for (int i = 0; i < 1000 && verdict == Verdict::kContinue; ++i) verdict = Push(*stream, "a");
  EXPECT_EQ(verdict, Verdict::kAbort);
  stream->OnFinish(0, FinishReason::kStop, {});
  stream->OnEnd(absl::OkStatus());
  const StreamOutput output = stream->Take();
  EXPECT_TRUE(output.ended);
  EXPECT_EQ(output.status.code(), absl::StatusCode::kResourceExhausted);
  stream->Detach();
}

TEST_F(ResponseStreamTest, AStalledReaderEndsTheRequestAndThenTheCall) {
  const auto stream = Make({}, {.write_timeout = absl::Milliseconds(1)});
  waker_.Watch(stream);
  Push(*stream, "a");
  listener_.AwaitStalled();
  EXPECT_EQ(Push(*stream, "b"), Verdict::kAbort);
  stream->OnEnd(absl::OkStatus());
  EXPECT_EQ(stream->Take().status.code(), absl::StatusCode::kResourceExhausted);
  stream->Detach();
}

TEST_F(ResponseStreamTest, AWholeAnswerThatFailedHasNoPartialOutput) {
  const auto stream = Make({}, {.whole = true});
  Push(*stream, "a");
  stream->OnFinish(0, FinishReason::kCancelled, {});
  stream->OnEnd(absl::DeadlineExceededError("late"));
  const StreamOutput output = stream->Take();
  EXPECT_TRUE(output.ended);
  EXPECT_TRUE(output.deltas.empty());
  EXPECT_EQ(output.status.code(), absl::StatusCode::kDeadlineExceeded);
  stream->Detach();
}

TEST_F(ResponseStreamTest, ADetachedStreamStopsItsSequencesAndCallsNobody) {
  const auto stream = Make({});
  stream->Detach();
  EXPECT_EQ(Push(*stream, "a"), Verdict::kAbort);
  EXPECT_TRUE(stream->Take().deltas.empty());
  stream->NotifyListener();
}

TEST_F(ResponseStreamTest, ARequestThatNeverStartedGivesItsPlaceBack) {
  Make({})->Detach();
  EXPECT_EQ(generation_ends_, 1);
}

}  // namespace
}  // namespace moesaic
