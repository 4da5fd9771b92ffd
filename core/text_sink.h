#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace moesaic {

enum class FinishReason : uint8_t { kNone, kLength, kStop, kCancelled, kError };

struct TokenLogprob {
  int32_t token = 0;
  float logprob =
      0.0f;  // natural logarithm, of the model's own distribution before temperature and penalties
  int32_t rank = 0;  // 1 is the most probable token
};

// One new token of one sequence.
struct TokenOutput {
  int32_t token = 0;
  TokenLogprob chosen;            // filled when log-probabilities were asked for
  std::vector<TokenLogprob> top;  // descending
};

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t cached_prompt_tokens = 0;  // served from the prefix cache
  int32_t completion_tokens = 0;
};

// Where a request's tokens go: text, stop strings and the client's stream.
//
// Owner: shared by the edge (which reads the stream) and the engine. Thread: every method is called
// by the engine thread, once per token before the sequence is scheduled again; none may block.
// After OnEnd nothing more comes.
class TextSink {
 public:
  enum class Verdict : uint8_t { kContinue, kStop, kAbort };

  virtual ~TextSink() = default;

  // Log-probabilities of prompt[1..], in order, before the first token; only when they were asked
  // for.
  virtual void OnPromptLogprobs(const std::vector<TokenOutput>& prompt) = 0;
  // `sequence` in [0, n). kStop ends the sequence after this token (a stop string was
  // completed), kAbort too, because nobody reads it any more.
  virtual Verdict OnToken(int32_t sequence, const TokenOutput& token) = 0;
  // The sequence will get no more tokens. kStop when a stop id or the sink's own verdict ended it,
  // kCancelled when that verdict was kAbort.
  virtual void OnFinish(int32_t sequence, FinishReason reason, const Usage& usage) = 0;
  // The tokens of one engine step have all been handed over; a good moment to write.
  virtual void OnStepEnd() = 0;
  // All sequences are finished (OK), or the request failed.
  virtual void OnEnd(const absl::Status& status) = 0;
};

}  // namespace moesaic
