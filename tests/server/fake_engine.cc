#include "tests/server/fake_engine.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "absl/time/clock.h"
#include "base/str_cat.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

class ByteDecodeStream final : public DecodeStream {
 public:
  explicit ByteDecodeStream(const DecodeOptions& options) : options_(options) {}

  void Push(int32_t id, std::string* out) override {
    if (id == ByteTokenizer::kEos) {
      if (!options_.skip_special_tokens) *out += "</s>";
      return;
    }
    held_ += static_cast<char>(id);
    while (!held_.empty()) {
      const Utf8Scan scan = ScanUtf8(held_);
      if (scan.kind == Utf8Prefix::kIncomplete) return;
      *out += scan.kind == Utf8Prefix::kCharacter ? held_.substr(0, scan.length)
                                                  : std::string(kReplacementCharacter);
      held_.erase(0, scan.length);
    }
  }
  void Flush(std::string* out) override {
    if (!held_.empty()) *out += kReplacementCharacter;
  }

 private:
  const DecodeOptions options_;
  std::string held_;
};

}  // namespace

absl::StatusOr<std::vector<int32_t>> ByteTokenizer::Encode(std::string_view text,
                                                           const EncodeOptions&) const {
  if (const auto offset = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(StrCat("invalid UTF-8 at byte ", *offset));
  }
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::unique_ptr<DecodeStream> ByteTokenizer::NewDecodeStream(const DecodeOptions& options) const {
  return std::make_unique<ByteDecodeStream>(options);
}

std::optional<int32_t> ByteTokenizer::TokenToId(std::string_view token) const {
  if (token == "</s>") return kEos;
  if (token.size() != 1) return std::nullopt;
  return static_cast<unsigned char>(token[0]);
}

std::string ByteTokenizer::IdToToken(int32_t id) const {
  if (id == kEos) return "</s>";
  return id >= 0 && id < kEos ? std::string(1, static_cast<char>(id)) : "";
}

FakeEngine::FakeEngine(int32_t max_sequences, int32_t max_queue, int32_t max_model_len)
    : max_sequences_(max_sequences),
      max_queue_(max_queue),
      max_model_len_(max_model_len),
      thread_([this] { Loop(); }) {}

FakeEngine::~FakeEngine() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

absl::Status FakeEngine::Submit(Request request, std::shared_ptr<TextSink> sink) {
  const std::lock_guard lock(mutex_);
  if (draining_) return absl::UnavailableError("draining");
  if (static_cast<int32_t>(requests_.size()) >= max_sequences_ + max_queue_) {
    return absl::ResourceExhaustedError("full");
  }
  auto running = std::make_unique<Running>();
  running->tokens.assign(request.params.n, 0);
  running->request = std::move(request);
  running->sink = std::move(sink);
  requests_.push_back(std::move(running));
  changed_.notify_all();
  return absl::OkStatus();
}

void FakeEngine::Cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  cancelled_.insert(id);
  changed_.notify_all();
}

EngineLoad FakeEngine::load() const {
  const std::lock_guard lock(mutex_);
  const auto accepted = static_cast<int32_t>(requests_.size());
  const int32_t running = std::min(accepted, max_sequences_);
  return {.running = running,
          .waiting = accepted - running,
          .kv_blocks_total = 100,
          .kv_blocks_used = running};
}

const Model& FakeEngine::model() const {
  std::abort();  // the edge asks the ServedModel instead
}

void FakeEngine::Drain(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  const auto empty = [this] { return requests_.empty(); };
  const auto limit = std::min(deadline, absl::Now() + absl::Hours(1));
  if (changed_.wait_until(lock, absl::ToChronoTime(limit), empty)) return;
  for (const auto& running : requests_) cancelled_.insert(running->request.id);
  changed_.notify_all();
  changed_.wait(lock, empty);
}

void FakeEngine::SetHeld(bool held) {
  const std::lock_guard lock(mutex_);
  held_ = held;
  changed_.notify_all();
}

int64_t FakeEngine::steps() const {
  const std::lock_guard lock(mutex_);
  return steps_;
}

bool FakeEngine::Step(Running& running) {
  const Request& request = running.request;
  const auto prompt_tokens = static_cast<int32_t>(request.prompt.size());
  if (!std::exchange(running.started, true) && request.params.prompt_logprobs) {
    std::vector<TokenOutput> prompt;
    for (int32_t i = 1; i < prompt_tokens; ++i) {
      prompt.push_back({.token = request.prompt[i],
                        .chosen = {.token = request.prompt[i], .logprob = -1.0f, .rank = 1},
                        .top = {}});
    }
    running.sink->OnPromptLogprobs(prompt);
  }
  bool over = true;
  for (int32_t i = 0; i < request.params.n; ++i) {
    int32_t& count = running.tokens[i];
    if (count < 0) continue;
    const int32_t token = request.prompt[count++ % prompt_tokens];
    TokenOutput output{.token = token, .chosen = {}, .top = {}};
    if (request.params.logprobs) {
      output.chosen = {.token = token, .logprob = -0.5f, .rank = 1};
      output.top.assign(*request.params.logprobs, output.chosen);
    }
    const TextSink::Verdict verdict = running.sink->OnToken(i, output);
    const auto& stops = request.params.stop_token_ids;
    const bool stop = std::find(stops.begin(), stops.end(), token) != stops.end() ||
                      (token == ByteTokenizer::kEos && !request.params.ignore_eos) ||
                      verdict != TextSink::Verdict::kContinue;
    if (!stop && count < request.params.max_tokens) {
      over = false;
      continue;
    }
    running.sink->OnFinish(i, stop ? FinishReason::kStop : FinishReason::kLength,
                           {.prompt_tokens = prompt_tokens, .completion_tokens = count});
    count = -1;
  }
  running.sink->OnStepEnd();
  return over;
}

void FakeEngine::Loop() {
  while (true) {
    std::vector<Running*> step;
    std::vector<std::unique_ptr<Running>> ended;
    std::vector<absl::Status> statuses;
    {
      std::unique_lock lock(mutex_);
      const auto has_work = [this] {
        return stop_ || !cancelled_.empty() || (!held_ && !requests_.empty());
      };
      // Wakes now and then to look at deadlines.
      changed_.wait_until(lock, std::chrono::system_clock::now() + std::chrono::milliseconds(5),
                          has_work);
      if (stop_ && requests_.empty()) return;
      for (auto it = requests_.begin(); it != requests_.end();) {
        const bool late = (*it)->request.deadline <= absl::Now();
        if (stop_ || late || cancelled_.count((*it)->request.id) > 0) {
          ended.push_back(std::move(*it));
          statuses.push_back(late ? absl::DeadlineExceededError("deadline")
                                  : absl::CancelledError("cancelled"));
          it = requests_.erase(it);
          changed_.notify_all();
        } else {
          ++it;
        }
      }
      cancelled_.clear();
      if (!held_) {
        for (const auto& running : requests_) {
          if (static_cast<int32_t>(step.size()) < max_sequences_) step.push_back(running.get());
        }
        ++steps_;
      }
    }
    for (size_t i = 0; i < ended.size(); ++i) ended[i]->sink->OnEnd(statuses[i]);
    for (Running* running : step) {
      if (!Step(*running)) continue;
      std::unique_ptr<Running> over;
      {
        const std::lock_guard lock(mutex_);
        const auto found =
            std::find_if(requests_.begin(), requests_.end(),
                         [running](const auto& other) { return other.get() == running; });
        over = std::move(*found);
        requests_.erase(found);
        changed_.notify_all();
      }
      over->sink->OnEnd(absl::OkStatus());
    }
  }
}

ServedModel MakeFakeModel(int32_t max_sequences,
                          int32_t max_queue,
                          int32_t max_model_len,
                          FakeEngine** engine) {
  ServedModel model;
  model.name = "fake";
  model.config.architecture = "FakeForCausalLM";
  model.config.vocab_size = ByteTokenizer::kVocabSize;
  model.config.eos_token_ids = {ByteTokenizer::kEos};
  model.limits.vocab_size = model.config.vocab_size;
  model.tokenizer = std::make_unique<ByteTokenizer>();
  auto fake = std::make_unique<FakeEngine>(max_sequences, max_queue, max_model_len);
  if (engine != nullptr) *engine = fake.get();
  model.engine = std::move(fake);
  return model;
}

}  // namespace moesaic
