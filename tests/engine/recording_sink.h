#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "core/text_sink.h"

namespace moesaic {

// Keeps everything that the engine says, and checks the order in which it may say it.
class RecordingSink final : public TextSink {
 public:
  struct Stream {
    std::vector<TokenOutput> outputs;
    FinishReason reason = FinishReason::kNone;
    Usage usage;

    std::vector<int32_t> tokens() const;
  };

  explicit RecordingSink(int32_t n = 1) : streams_(n) {}

  void OnPromptLogprobs(const std::vector<TokenOutput>& prompt) override;
  Verdict OnToken(int32_t sequence, const TokenOutput& token) override;
  void OnFinish(int32_t sequence, FinishReason reason, const Usage& usage) override;
  void OnStepEnd() override;
  void OnEnd(const absl::Status& status) override;

  // Blocks until OnEnd; then nothing changes any more.
  absl::Status Wait();
  // Blocks until `count` tokens of sequence 0 have come.
  void WaitForTokens(size_t count);

  const std::vector<Stream>& streams() const { return streams_; }
  std::vector<int32_t> tokens(int32_t sequence = 0) const { return streams_[sequence].tokens(); }
  const std::optional<std::vector<TokenOutput>>& prompt_logprobs() const { return prompt_; }
  int32_t step_ends() const { return step_ends_; }

  // Called with each token on the engine thread; its verdict is returned.
  std::function<Verdict(int32_t sequence, const TokenOutput& token)> on_token;
  // Called at the end on the engine thread.
  std::function<void()> on_end;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Stream> streams_;
  std::optional<std::vector<TokenOutput>> prompt_;
  int32_t step_ends_ = 0;
  bool undelivered_ = false;
  std::optional<absl::Status> status_;
};

}  // namespace moesaic
