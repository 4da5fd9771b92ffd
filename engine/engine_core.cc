#include "engine/engine_core.h"

#include <algorithm>
#include <cassert>

#include "base/status_macros.h"
#include "engine/logits_processor.h"
#include "engine/logprobs.h"

namespace moesaic {

EngineCore::EngineCore(const EngineOptions& options,
                       std::unique_ptr<Model> model,
                       std::unique_ptr<RoutingTap> routing_tap,
                       KvCache cache,
                       int32_t sliding_window,
                       const kernels::KernelTable& kernels,
                       MetricsRegistry& metrics,
                       RequestQueue& queue)
    : options_(options),
      model_(std::move(model)),
      routing_tap_(std::move(routing_tap)),
      cache_(std::move(cache)),
      kernels_(kernels),
      metrics_(metrics),
      queue_(queue),
      blocks_(cache_.num_blocks(), options.prefix_cache, sliding_window),
      builder_(blocks_, cache_),
      sampler_(kernels, model_->config().vocab_size, model_->config().eos_token_ids),
      budget_{.max_rows = options.max_batch_tokens,
              .max_logits_rows = options.max_logits_rows,
              .max_sequences = options.max_sequences,
              .max_sequence_blocks = blocks_.MaxBlocksHeld(options.max_model_len)},
      seeds_(std::random_device{}()) {
  metrics_.SetLoad(load());
  if (routing_tap_ != nullptr) model_->SetRoutingHook(routing_tap_.get());
  if (model_->expert_memory() != nullptr) tier_metrics_.emplace(metrics);
}

void EngineCore::Accept(Submission submission) {
  auto request = std::make_unique<ActiveRequest>();
  request->request = std::move(submission.request);
  request->sink = std::move(submission.sink);
  request->arrival_order = ++last_arrival_;
  request->seed = request->request.params.seed.value_or(seeds_());
  request->unfinished = request->n();
  request->sequences.resize(request->n());

  auto sequence = std::make_unique<Sequence>();
  sequence->request = request.get();
  sequence->tokens = request->request.prompt;
  if (NeedsTokenUses(request->request.params)) {
    for (int32_t token : sequence->tokens) sequence->token_uses[token].in_prompt = true;
  }
  waiting_.push_back(sequence.get());
  request->sequences[0] = std::move(sequence);
  const RequestId id = request->request.id;
  requests_.emplace(id, std::move(request));
}

void EngineCore::Cancel(RequestId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  EndRequest(*it->second, FinishReason::kCancelled,
             absl::CancelledError("the request was cancelled"));
}

void EngineCore::CancelAll() {
  for (auto& [id, request] : requests_) {
    EndRequest(*request, FinishReason::kCancelled,
               absl::CancelledError("the server is shutting down"));
  }
}

absl::Time EngineCore::ExpireDeadlines(absl::Time now) {
  absl::Time next = absl::InfiniteFuture();
  for (auto& [id, request] : requests_) {
    const absl::Time deadline = request->request.deadline;
    if (deadline > now) {
      next = std::min(next, deadline);
    } else {
      EndRequest(*request, FinishReason::kCancelled,
                 absl::DeadlineExceededError("the request's deadline passed"));
    }
  }
  return next;
}

void EngineCore::Step() {
  Schedule();
  assert(builder_.batch().num_rows() > 0);
  const absl::Status status = RunModel();
  const absl::Time now = absl::Now();
  metrics_.StepDone(builder_.batch(), model_->counters());
  if (tier_metrics_) tier_metrics_->Update(model_->expert_memory()->metrics());
  EndFailedRows();
  for (const ScheduledSequence& scheduled : builder_.scheduled()) {
    if (status.ok()) {
      Advance(scheduled, now);
    } else {
      EndRequest(*scheduled.sequence->request, FinishReason::kError, status);
    }
  }
}

void EngineCore::Schedule() {
  budget_.admit = true;
  while (true) {
    budget_.free_blocks = blocks_.free_blocks();
    views_.clear();
    for (const Sequence* sequence : running_) views_.push_back(ViewOf(*sequence, blocks_));
    prefixes_.clear();
    PlanStep(
        budget_, views_, [this] { return NextWaiting(); }, plan_);
    if (plan_.preempt < 0) break;
    Preempt(*running_[plan_.preempt]);
    budget_.admit = false;
  }

  builder_.Clear();
  // Cached prefixes first: a new block could evict them.
  const size_t first_admitted = running_.size();
  Admit(static_cast<int32_t>(plan_.admitted.size()));
  for (const ScheduledRows& rows : plan_.running) {
    builder_.Add(*running_[rows.index], rows.num_rows);
  }
  for (const ScheduledRows& rows : plan_.admitted) {
    builder_.Add(*running_[first_admitted + rows.index], rows.num_rows);
  }
  builder_.CopySharedBlocks();
  std::sort(running_.begin(), running_.end(),
            [](const Sequence* a, const Sequence* b) { return ArrivedBefore(*a, *b); });
}

const SequenceView* EngineCore::NextWaiting() {
  if (prefixes_.size() == waiting_.size()) return nullptr;
  const Sequence& sequence = *waiting_[prefixes_.size()];
  const KvBlockManager::PrefixMatch prefix =
      blocks_.FindPrefix(sequence.tokens, LogitsFrom(sequence));
  prefixes_.push_back(prefix);
  waiting_view_ = ViewOf(sequence, blocks_);
  waiting_view_.computed_tokens = prefix.blocks * kKvBlockTokens;
  waiting_view_.blocks_held = prefix.blocks;
  waiting_view_.extra_blocks = prefix.free_blocks;
  return &waiting_view_;
}

void EngineCore::Preempt(Sequence& sequence) {
  blocks_.Release(sequence.kv);
  sequence.computed_tokens = 0;
  sequence.state = Sequence::State::kWaiting;
  std::erase(running_, &sequence);
  const auto place =
      std::upper_bound(waiting_.begin(), waiting_.end(), &sequence,
                       [](const Sequence* a, const Sequence* b) { return ArrivedBefore(*a, *b); });
  waiting_.insert(place, &sequence);
  metrics_.Preempted();
}

void EngineCore::Admit(int32_t count) {
  const absl::Time now = absl::Now();
  for (int32_t i = 0; i < count; ++i) {
    Sequence& sequence = *waiting_.front();
    waiting_.pop_front();
    const int32_t prefix_tokens = prefixes_[i].blocks * kKvBlockTokens;
    blocks_.TakePrefix(sequence.tokens, prefixes_[i].blocks, sequence.kv);
    sequence.computed_tokens = prefix_tokens;
    sequence.state = Sequence::State::kRunning;
    running_.push_back(&sequence);
    ActiveRequest& request = *sequence.request;
    if (request.first_scheduled) continue;
    request.first_scheduled = now;
    request.cached_prompt_tokens = prefix_tokens;
    metrics_.RequestScheduled(request);
    if (options_.prefix_cache) metrics_.PrefixLookup(request.prompt_tokens(), prefix_tokens);
  }
}

void EngineCore::EndFailedRows() {
  const std::vector<BatchSequence>& sequences = builder_.batch().sequences;
  for (const RowFailure& failure : model_->failures()) {
    // The sequence whose rows hold it: the last that begins at or before it.
    const auto after = std::upper_bound(
        sequences.begin(), sequences.end(), failure.row,
        [](int32_t row, const BatchSequence& sequence) { return row < sequence.first_row; });
    const ScheduledSequence& scheduled = builder_.scheduled()[after - sequences.begin() - 1];
    EndRequest(*scheduled.sequence->request, FinishReason::kError, failure.status);
  }
}

absl::Status EngineCore::RunModel() {
  model_->BeginStep(builder_.batch(), cache_);
  if (routing_tap_ != nullptr) routing_tap_->BeginStep(builder_.batch());
  const int32_t num_blocks = static_cast<int32_t>(model_->blocks().size());
  for (int32_t block = 0; block < num_blocks; ++block) {
    MOESAIC_RETURN_IF_ERROR(model_->RunBlock(block));
  }
  return absl::OkStatus();
}

std::span<const float> EngineCore::LogitsRow(int32_t index) const {
  const size_t vocab_size = static_cast<size_t>(model_->config().vocab_size);
  return model_->logits().subspan(vocab_size * index, vocab_size);
}

void EngineCore::Advance(const ScheduledSequence& scheduled, absl::Time now) {
  Sequence& sequence = *scheduled.sequence;
  if (sequence.state == Sequence::State::kFinished) return;  // its request failed in this step
  ActiveRequest& request = *sequence.request;
  const int32_t begin = sequence.computed_tokens;
  sequence.computed_tokens += scheduled.num_rows;
  blocks_.Publish(sequence.tokens, sequence.computed_tokens, sequence.kv);
  if (request.prompt_logprobs_pending()) CollectPromptLogprobs(scheduled, begin);

  if (sequence.computed_tokens == sequence.num_tokens()) {
    const std::span<const float> logits =
        LogitsRow(scheduled.first_logits + scheduled.num_logits - 1);
    if (request.request.params.prompt_logprobs && !request.first_token) {
      request.sink->OnPromptLogprobs(request.prompt_logprobs);
      MarkDelivered(request);
    }
    if (request.forked()) {
      SampleNext(sequence, logits, now);
    } else {
      Fork(sequence);
      for (const auto& each : request.sequences) {
        if (each->state == Sequence::State::kRunning) SampleNext(*each, logits, now);
      }
    }
  }
  if (sequence.state == Sequence::State::kRunning) {
    blocks_.ReleaseBehindWindow(sequence.computed_tokens, sequence.kv);
  }
}

void EngineCore::CollectPromptLogprobs(const ScheduledSequence& scheduled, int32_t begin) {
  ActiveRequest& request = *scheduled.sequence->request;
  const int32_t first = static_cast<int32_t>(request.prompt_logprobs.size());
  const int32_t end =
      std::min(begin + scheduled.num_rows, request.prompt_tokens() - 1);  // positions of rows
  for (int32_t position = std::max(begin, first); position < end; ++position) {
    TokenOutput output;
    output.token = request.request.prompt[position + 1];
    ComputeLogprobs(LogitsRow(scheduled.first_logits + position - std::max(begin, first)),
                    *request.request.params.prompt_logprobs, kernels_, output);
    request.prompt_logprobs.push_back(std::move(output));
  }
}

void EngineCore::Fork(Sequence& first) {
  ActiveRequest& request = *first.request;
  for (int32_t i = 1; i < request.n(); ++i) {
    auto sequence = std::make_unique<Sequence>();
    sequence->request = &request;
    sequence->index = i;
    sequence->state = Sequence::State::kRunning;
    sequence->tokens = first.tokens;
    sequence->computed_tokens = first.computed_tokens;
    sequence->token_uses = first.token_uses;
    blocks_.Fork(first.kv, sequence->kv);
    running_.push_back(sequence.get());
    request.sequences[i] = std::move(sequence);
  }
  std::sort(running_.begin(), running_.end(),
            [](const Sequence* a, const Sequence* b) { return ArrivedBefore(*a, *b); });
}

void EngineCore::SampleNext(Sequence& sequence, std::span<const float> logits, absl::Time now) {
  ActiveRequest& request = *sequence.request;
  const SamplingParams& params = request.request.params;
  const absl::StatusOr<int32_t> token =
      sampler_.Sample(logits, {.params = params,
                               .seed = request.seed + static_cast<uint64_t>(sequence.index),
                               .output_tokens = sequence.num_tokens() - request.prompt_tokens(),
                               .token_uses = sequence.token_uses});
  if (!token.ok()) return EndRequest(request, FinishReason::kError, token.status());

  TokenOutput output;
  output.token = *token;
  if (params.logprobs) ComputeLogprobs(logits, *params.logprobs, kernels_, output);
  metrics_.TokenGenerated(sequence, now);
  if (!request.first_token) request.first_token = now;
  sequence.last_token_time = now;
  sequence.tokens.push_back(*token);
  ++request.generated_tokens;
  if (NeedsTokenUses(params)) ++sequence.token_uses[*token].output_count;

  const TextSink::Verdict verdict = request.sink->OnToken(sequence.index, output);
  MarkDelivered(request);
  const FinishReason reason = ReasonToFinish(sequence, verdict);
  if (reason != FinishReason::kNone) FinishSequence(sequence, reason);
}

FinishReason EngineCore::ReasonToFinish(const Sequence& sequence, TextSink::Verdict verdict) const {
  const SamplingParams& params = sequence.request->request.params;
  const int32_t output_tokens = sequence.num_tokens() - sequence.request->prompt_tokens();
  if (verdict == TextSink::Verdict::kAbort) return FinishReason::kCancelled;
  if (verdict == TextSink::Verdict::kStop || sampler_.IsStopToken(params, sequence.tokens.back())) {
    return FinishReason::kStop;
  }
  if (output_tokens >= params.max_tokens || sequence.num_tokens() >= options_.max_model_len) {
    return FinishReason::kLength;
  }
  return FinishReason::kNone;
}

void EngineCore::FinishSequence(Sequence& sequence, FinishReason reason) {
  ActiveRequest& request = *sequence.request;
  blocks_.Release(sequence.kv);
  sequence.state = Sequence::State::kFinished;
  metrics_.SequenceFinished(reason);
  request.sink->OnFinish(sequence.index, reason,
                         {.prompt_tokens = request.prompt_tokens(),
                          .cached_prompt_tokens = request.cached_prompt_tokens,
                          .completion_tokens = sequence.num_tokens() - request.prompt_tokens()});
  MarkDelivered(request);
  if (--request.unfinished == 0) ended_.emplace_back(&request, absl::OkStatus());
}

void EngineCore::EndRequest(ActiveRequest& request, FinishReason reason, absl::Status status) {
  if (request.unfinished == 0) return;
  for (int32_t i = 0; i < request.n(); ++i) {
    if (request.sequences[i] == nullptr) {
      // The prompt's computation stands for all of them: only the first has blocks to free.
      request.sequences[i] = std::make_unique<Sequence>();
      request.sequences[i]->request = &request;
      request.sequences[i]->index = i;
      request.sequences[i]->tokens = request.request.prompt;
    }
    if (request.sequences[i]->state != Sequence::State::kFinished) {
      FinishSequence(*request.sequences[i], reason);
    }
  }
  ended_.back().second = std::move(status);
}

void EngineCore::MarkDelivered(ActiveRequest& request) {
  if (request.delivered) return;
  request.delivered = true;
  delivered_.push_back(&request);
}

void EngineCore::Settle() {
  const auto finished = [](const Sequence* sequence) {
    return sequence->state == Sequence::State::kFinished;
  };
  std::erase_if(running_, finished);
  // A waiting sequence finishes only with its whole request.
  if (!ended_.empty()) std::erase_if(waiting_, finished);
  const absl::Time now = absl::Now();
  int32_t running_requests = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    running_requests += i == 0 || running_[i]->request != running_[i - 1]->request;
  }
  for (const auto& [request, status] : ended_) {
    metrics_.RequestEnded(*request, now);
    queue_.FreePlace();
  }
  running_requests_ = running_requests;
  used_blocks_ = blocks_.used_blocks();
  metrics_.SetLoad(load());

  for (ActiveRequest* request : delivered_) {
    request->delivered = false;
    request->sink->OnStepEnd();
  }
  delivered_.clear();
  for (const auto& [request, status] : ended_) {
    const RequestId id = request->request.id;
    request->sink->OnEnd(status);
    requests_.erase(id);
    queue_.Forget(id);
  }
  ended_.clear();
}

EngineLoad EngineCore::load() const {
  const int32_t running = running_requests_;
  return {.running = running,
          // Accepted requests whose place to run is free but not yet taken are in no queue.
          .waiting = std::clamp(queue_.num_accepted() - running, 0, options_.max_queue),
          .kv_blocks_total = blocks_.num_blocks(),
          .kv_blocks_used = used_blocks_};
}

}  // namespace moesaic
