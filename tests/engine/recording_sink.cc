#include "tests/engine/recording_sink.h"

#include <gtest/gtest.h>

namespace moesaic {

std::vector<int32_t> RecordingSink::Stream::tokens() const {
  std::vector<int32_t> tokens;
  for (const TokenOutput& output : outputs) tokens.push_back(output.token);
  return tokens;
}

void RecordingSink::OnPromptLogprobs(const std::vector<TokenOutput>& prompt) {
  const std::lock_guard lock(mutex_);
  EXPECT_FALSE(status_) << "after OnEnd";
  EXPECT_FALSE(prompt_) << "twice";
  for (const Stream& stream : streams_) EXPECT_TRUE(stream.outputs.empty());
  prompt_ = prompt;
  undelivered_ = true;
}

TextSink::Verdict RecordingSink::OnToken(int32_t sequence, const TokenOutput& token) {
  {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(status_) << "after OnEnd";
    EXPECT_EQ(streams_.at(sequence).reason, FinishReason::kNone) << "after OnFinish";
    streams_.at(sequence).outputs.push_back(token);
    undelivered_ = true;
  }
  changed_.notify_all();
  return on_token ? on_token(sequence, token) : Verdict::kContinue;
}

void RecordingSink::OnFinish(int32_t sequence, FinishReason reason, const Usage& usage) {
  const std::lock_guard lock(mutex_);
  Stream& stream = streams_.at(sequence);
  EXPECT_FALSE(status_) << "after OnEnd";
  EXPECT_EQ(stream.reason, FinishReason::kNone) << "finished twice";
  EXPECT_NE(reason, FinishReason::kNone);
  EXPECT_EQ(usage.completion_tokens, static_cast<int32_t>(stream.outputs.size()));
  stream.reason = reason;
  stream.usage = usage;
  undelivered_ = true;
}

void RecordingSink::OnStepEnd() {
  const std::lock_guard lock(mutex_);
  EXPECT_TRUE(undelivered_) << "a step without news";
  undelivered_ = false;
  ++step_ends_;
}

void RecordingSink::OnEnd(const absl::Status& status) {
  if (on_end) on_end();
  {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(status_) << "ended twice";
    EXPECT_FALSE(undelivered_) << "no OnStepEnd after the last news";
    for (const Stream& stream : streams_) EXPECT_NE(stream.reason, FinishReason::kNone);
    // A copy of its own: ThreadSanitizer cannot see the reference count inside the distribution's
    // Abseil when the engine and a test let go of one message.
    status_ = absl::Status(status.code(), status.message());
  }
  changed_.notify_all();
}

absl::Status RecordingSink::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return status_.has_value(); });
  return *status_;
}

void RecordingSink::WaitForTokens(size_t count) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return streams_[0].outputs.size() >= count || status_.has_value(); });
}

}  // namespace moesaic
