#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "core/request.h"
#include "core/text_sink.h"
#include "memory/kv_block_manager.h"

namespace moesaic {

// How often a token occurred so far, for penalties.
struct TokenUse {
  int32_t output_count = 0;
  bool in_prompt = false;
};
using TokenUseMap = absl::flat_hash_map<int32_t, TokenUse>;

struct ActiveRequest;

// One token stream of a request: its prompt and what was sampled so far. Everything but the KV
// blocks survives preemption. Owner: its ActiveRequest. Thread: engine.
struct Sequence {
  enum class State : uint8_t { kWaiting, kRunning, kFinished };

  ActiveRequest* request = nullptr;
  int32_t index = 0;  // in [0, n)
  State state = State::kWaiting;
  std::vector<int32_t> tokens;  // prompt, then output
  int32_t computed_tokens = 0;  // leading tokens whose KV is in `kv`
  KvBlockTable kv;
  TokenUseMap token_uses;  // kept only when a penalty is set
  absl::Time last_token_time;

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
};

// An accepted request until its end. Owner and thread: engine.
struct ActiveRequest {
  Request request;
  std::shared_ptr<TextSink> sink;  // shared with the edge, which reads the stream
  uint64_t arrival_order = 0;      // from 1
  uint64_t seed = 0;               // sequence i draws with seed + i
  // [n]; the prompt is computed once, by the first: the others are null until then.
  std::vector<std::unique_ptr<Sequence>> sequences;
  int32_t unfinished = 0;
  std::vector<TokenOutput> prompt_logprobs;  // collected so far, of prompt[1..]
  int32_t cached_prompt_tokens = 0;
  int32_t generated_tokens = 0;  // of all sequences
  bool delivered = false;        // something was handed to the sink in this step
  std::optional<absl::Time> first_scheduled;
  std::optional<absl::Time> first_token;

  int32_t prompt_tokens() const { return static_cast<int32_t>(request.prompt.size()); }
  int32_t n() const { return request.params.n; }
  bool forked() const { return n() == 1 || sequences[1] != nullptr; }
  bool prompt_logprobs_pending() const {
    return request.params.prompt_logprobs.has_value() &&
           static_cast<int32_t>(prompt_logprobs.size()) < prompt_tokens() - 1;
  }
};

// Order in which sequences are served: by arrival, then by index within the request.
inline bool ArrivedBefore(const Sequence& a, const Sequence& b) {
  if (a.request->arrival_order != b.request->arrival_order) {
    return a.request->arrival_order < b.request->arrival_order;
  }
  return a.index < b.index;
}

}  // namespace moesaic
