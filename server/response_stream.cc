#include "server/response_stream.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/time/clock.h"
#include "server/stream_waker.h"

namespace moesaic {
namespace {

// How a token decodes may depend on the few before it (a leading space, an unfinished character).
constexpr size_t kContextTokens = 8;

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

ResponseStream::ResponseStream(RequestId id,
                               const SamplingParams& params,
                               const std::vector<int32_t>& eos_token_ids,
                               std::span<const int32_t> prompt,
                               const Tokenizer* tokenizer,
                               const StreamOptions& options,
                               StreamWaker& waker,
                               StreamListener* listener,
                               std::function<void()> on_generation_end)
    : id_(id),
      options_(options),
      include_stop_(params.include_stop_str_in_output),
      min_tokens_(params.min_tokens),
      stop_token_ids_(params.stop_token_ids),
      end_token_ids_(params.ignore_eos ? std::vector<int32_t>() : eos_token_ids),
      waker_(waker),
      on_generation_end_(std::move(on_generation_end)),
      listener_(listener) {
  const auto context = prompt.last(std::min(prompt.size(), kContextTokens));
  sequences_.reserve(params.n);
  pending_.resize(params.n);
  for (int32_t i = 0; i < params.n; ++i) {
    Sequence& sequence = sequences_.emplace_back(
        Sequence{.detokenizer = std::nullopt,
                 .stops = StopMatcher(params.stop, params.include_stop_str_in_output)});
    if (tokenizer != nullptr && options.detokenize) {
      sequence.detokenizer.emplace(
          *tokenizer, DecodeOptions{.skip_special_tokens = params.skip_special_tokens}, context);
    }
    pending_[i].index = i;
  }
}

ResponseStream::~ResponseStream() {
  if (on_generation_end_) on_generation_end_();
}

bool ResponseStream::IsStopToken(int32_t token) const {
  return Contains(stop_token_ids_, token) || Contains(end_token_ids_, token);
}

std::string ResponseStream::Detokenize(Sequence& sequence, int32_t token) {
  // The token that ends a sequence is an id of the output but, as in vLLM, no part of its text.
  if (!sequence.detokenizer || (IsStopToken(token) && !include_stop_)) return "";
  std::string text = sequence.detokenizer->Push(token);
  // A stop string cannot begin within the first min_tokens tokens.
  if (sequence.tokens <= min_tokens_) return text;
  return sequence.stops.Push(text);
}

void ResponseStream::OnPromptLogprobs(const std::vector<TokenOutput>& prompt) {
  const std::lock_guard lock(mutex_);
  if (!detached_) prompt_logprobs_ = prompt;
}

TextSink::Verdict ResponseStream::OnToken(int32_t index, const TokenOutput& token) {
  Sequence& sequence = sequences_[index];
  ++sequence.tokens;
  sequence.last_token = token.token;
  const std::string text = Detokenize(sequence, token.token);

  const std::lock_guard lock(mutex_);
  if (progress_.first_token == absl::InfiniteFuture()) progress_.first_token = absl::Now();
  ++progress_.usage.completion_tokens;
  if (detached_ || !status_.ok()) return Verdict::kAbort;
  SequenceDelta& delta = pending_[index];
  delta.text += text;
  delta.tokens.push_back(token);
  pending_bytes_ += static_cast<int64_t>(text.size() + sizeof(TokenOutput) +
                                         token.top.size() * sizeof(TokenLogprob));
  if (!options_.whole && pending_bytes_ > options_.max_pending_bytes) {
    AbortSlowReader("more output is waiting than the server keeps for a stream");
    return Verdict::kAbort;
  }
  return sequence.stops.matched() ? Verdict::kStop : Verdict::kContinue;
}

void ResponseStream::OnFinish(int32_t index, FinishReason reason, const Usage& usage) {
  Sequence& sequence = sequences_[index];
  std::string rest;
  if (!sequence.stops.matched()) {
    if (sequence.detokenizer) rest = sequence.stops.Push(sequence.detokenizer->Flush());
    rest += sequence.stops.Flush();
  }
  const std::lock_guard lock(mutex_);
  progress_.finish_reason = reason;
  progress_.usage.prompt_tokens = usage.prompt_tokens;
  progress_.usage.cached_prompt_tokens = usage.cached_prompt_tokens;
  if (detached_ || !status_.ok()) return;
  SequenceDelta& delta = pending_[index];
  delta.text += rest;
  delta.usage = usage;
  delta.finish_reason = sequence.stops.matched() ? FinishReason::kStop : reason;
  if (sequence.stops.matched()) {
    delta.stop_reason = sequence.stops.matched_stop();
  } else if (reason == FinishReason::kStop && Contains(stop_token_ids_, sequence.last_token)) {
    delta.stop_reason = sequence.last_token;
  }
}

void ResponseStream::OnStepEnd() { Announce(false); }

void ResponseStream::OnEnd(const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    if (status_.ok()) status_ = status;
    progress_.end = absl::Now();
  }
  // Before the client can learn of the end, so that its next request finds the place free.
  if (on_generation_end_) std::exchange(on_generation_end_, nullptr)();
  Announce(true);
}

void ResponseStream::Announce(bool ended) {
  {
    const std::lock_guard lock(mutex_);
    if (detached_) return;
    if (!ended) {
      if (options_.whole || !HasOutput()) return;
      const absl::Time now = absl::Now();
      if (now - StalledSince() > options_.write_timeout) {
        AbortSlowReader("the client has read nothing for too long");
      }
      if (announced_) return;
    }
    announced_ = true;
    announced_at_ = std::min(announced_at_, absl::Now());
  }
  waker_.Wake(shared_from_this());
}

bool ResponseStream::HasOutput() const {
  return !prompt_logprobs_.empty() ||
         std::any_of(pending_.begin(), pending_.end(),
                     [](const SequenceDelta& delta) { return !delta.empty(); });
}

absl::Time ResponseStream::StalledSince() const {
  return std::min(announced_at_, write_started_at_);
}

void ResponseStream::AbortSlowReader(const char* why) {
  if (status_.ok()) status_ = absl::ResourceExhaustedError(why);
}

StreamOutput ResponseStream::Take() {
  StreamOutput output;
  const std::lock_guard lock(mutex_);
  announced_ = false;
  announced_at_ = absl::InfiniteFuture();
  if (options_.whole && !ended_) return output;
  // One answer or none: a request that failed has no partial one.
  const bool drop = options_.whole && !status_.ok();
  if (!drop) output.prompt_logprobs = std::exchange(prompt_logprobs_, {});
  for (SequenceDelta& delta : pending_) {
    if (drop || delta.empty()) continue;
    SequenceDelta fresh;
    fresh.index = delta.index;
    output.deltas.push_back(std::exchange(delta, std::move(fresh)));
  }
  pending_bytes_ = 0;
  output.ended = ended_;
  if (ended_) output.status = status_;
  if (ended_ || !output.deltas.empty() || !output.prompt_logprobs.empty()) {
    write_started_at_ = absl::Now();
  }
  return output;
}

void ResponseStream::WriteDone() {
  const std::lock_guard lock(mutex_);
  write_started_at_ = absl::InfiniteFuture();
}

void ResponseStream::Detach() {
  const std::lock_guard listener_lock(listener_mutex_);
  listener_ = nullptr;
  const std::lock_guard lock(mutex_);
  detached_ = true;
  prompt_logprobs_.clear();
  pending_bytes_ = 0;
}

ResponseStream::Progress ResponseStream::progress() const {
  const std::lock_guard lock(mutex_);
  return progress_;
}

void ResponseStream::NotifyListener() {
  const std::lock_guard lock(listener_mutex_);
  if (listener_ != nullptr) listener_->OnOutputReady(*this);
}

void ResponseStream::CheckStalled(absl::Time now) {
  const std::lock_guard listener_lock(listener_mutex_);
  if (listener_ == nullptr) return;
  {
    const std::lock_guard lock(mutex_);
    if (now - StalledSince() <= 2 * options_.write_timeout) return;
    AbortSlowReader("the client has read nothing for too long");
  }
  listener_->OnStalled(*this);
}

}  // namespace moesaic
