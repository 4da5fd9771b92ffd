#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/ids.h"
#include "core/sampling_params.h"
#include "core/text_sink.h"
#include "server/stop_matcher.h"
#include "tokenizer/tokenizer.h"

namespace moesaic {

class ResponseStream;
class StreamWaker;

// New output of one sequence since it was last taken.
struct SequenceDelta {
  int32_t index = 0;
  std::string text;
  std::vector<TokenOutput> tokens;
  FinishReason finish_reason = FinishReason::kNone;  // of the sequence's last delta
  // What ended it with kStop; monostate for the end-of-sequence token.
  std::variant<std::monostate, std::string, int32_t> stop_reason;
  Usage usage;  // of the last delta

  bool empty() const {
    return text.empty() && tokens.empty() && finish_reason == FinishReason::kNone;
  }
};

struct StreamOutput {
  std::vector<TokenOutput> prompt_logprobs;
  std::vector<SequenceDelta> deltas;  // ascending index, none empty
  bool ended = false;                 // nothing comes after this output
  absl::Status status;                // when ended
};

// The RPC that reads a stream. Called on the waker's thread, never after Detach has returned.
class StreamListener {
 public:
  virtual ~StreamListener() = default;
  // There is output to Take.
  virtual void OnOutputReady(ResponseStream& stream) = 0;
  // The client has read nothing for so long that the RPC is to be cancelled.
  virtual void OnStalled(ResponseStream& stream) = 0;
};

struct StreamOptions {
  bool whole = false;  // announce nothing before the end: one answer
  bool detokenize = true;
  // More unread output than this ends the request with RESOURCE_EXHAUSTED.
  int64_t max_pending_bytes = int64_t{4} << 20;
  // So does a reader that takes nothing for this long; after twice the time its RPC is cancelled.
  absl::Duration write_timeout = absl::Seconds(30);
};

// The TextSink of one request, and the bounded outbox between the engine and the RPC that writes
// its tokens: incremental detokenisation, stop strings, and merging of what a slow reader has not
// taken yet.
//
// Owner: shared by the engine (until OnEnd), the RPC and the waker. Threads: TextSink methods on
// the engine's; everything else on any.
class ResponseStream final : public TextSink, public std::enable_shared_from_this<ResponseStream> {
 public:
  // `tokenizer` is null for a model without one; it and `waker` must outlive the engine.
  // `on_generation_end` runs once when the engine is done with the request, or never started it.
  ResponseStream(RequestId id,
                 const SamplingParams& params,
                 const std::vector<int32_t>& eos_token_ids,
                 std::span<const int32_t> prompt,
                 const Tokenizer* tokenizer,
                 const StreamOptions& options,
                 StreamWaker& waker,
                 StreamListener* listener,
                 std::function<void()> on_generation_end);
  ~ResponseStream() override;

  RequestId id() const { return id_; }
  bool whole() const { return options_.whole; }

  // What is new since the last call. After an output that is not empty the caller calls WriteDone
  // once the client has it.
  StreamOutput Take() ABSL_LOCKS_EXCLUDED(mutex_);
  void WriteDone() ABSL_LOCKS_EXCLUDED(mutex_);
  // The RPC is gone: later output is dropped and its sequences stop. Waits for a listener call that
  // is running; not to be called from one.
  void Detach() ABSL_LOCKS_EXCLUDED(listener_mutex_, mutex_);

  struct Progress {
    Usage usage;  // of all sequences together
    absl::Time first_token = absl::InfiniteFuture();
    absl::Time end = absl::InfiniteFuture();
    FinishReason finish_reason = FinishReason::kNone;
  };
  Progress progress() const ABSL_LOCKS_EXCLUDED(mutex_);

  // For the waker.
  void NotifyListener() ABSL_LOCKS_EXCLUDED(listener_mutex_);
  void CheckStalled(absl::Time now) ABSL_LOCKS_EXCLUDED(listener_mutex_, mutex_);

  // TextSink, on the engine thread.
  void OnPromptLogprobs(const std::vector<TokenOutput>& prompt) override;
  Verdict OnToken(int32_t sequence, const TokenOutput& token) override;
  void OnFinish(int32_t sequence, FinishReason reason, const Usage& usage) override;
  void OnStepEnd() override;
  void OnEnd(const absl::Status& status) override;

 private:
  // Used by the engine thread alone.
  struct Sequence {
    std::optional<IncrementalDetokenizer> detokenizer;
    StopMatcher stops;
    int32_t tokens = 0;
    int32_t last_token = -1;
  };

  bool IsStopToken(int32_t token) const;
  // The output text that `token` adds.
  std::string Detokenize(Sequence& sequence, int32_t token);
  void Announce(bool ended) ABSL_LOCKS_EXCLUDED(mutex_);
  void AbortSlowReader(const char* why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasOutput() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time StalledSince() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RequestId id_;
  const StreamOptions options_;
  const bool include_stop_;
  const int32_t min_tokens_;
  const std::vector<int32_t> stop_token_ids_;  // the request's
  const std::vector<int32_t> end_token_ids_;   // the model's; empty with ignore_eos
  StreamWaker& waker_;
  std::vector<Sequence> sequences_;  // [n]
  std::function<void()> on_generation_end_;

  // Held while the listener is called, so that Detach can wait for it.
  std::mutex listener_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  StreamListener* listener_ ABSL_GUARDED_BY(listener_mutex_);

  mutable std::mutex mutex_;
  std::vector<TokenOutput> prompt_logprobs_ ABSL_GUARDED_BY(mutex_);
  std::vector<SequenceDelta> pending_ ABSL_GUARDED_BY(mutex_);  // [n]
  int64_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool announced_ ABSL_GUARDED_BY(mutex_) = false;
  bool detached_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // when ended, or why the stream was aborted
  absl::Time announced_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Time write_started_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  Progress progress_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace moesaic
