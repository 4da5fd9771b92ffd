#include "memory/expert_policy.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "base/checked_math.h"
#include "base/str_cat.h"
#include "memory/use_frequency.h"

namespace moesaic {
namespace {

constexpr std::pair<std::string_view, ExpertPolicyKind> kNames[] = {
    {"on-demand", ExpertPolicyKind::kOnDemand},
    {"fifo", ExpertPolicyKind::kFifo},
    {"lru", ExpertPolicyKind::kLru},
    {"lfu", ExpertPolicyKind::kLfu},
    {"future", ExpertPolicyKind::kFuture},
    {"belady", ExpertPolicyKind::kBelady},
};

// Keys in an order that changes by moving one to the end: a doubly linked list in arrays.
class KeyList {
 public:
  explicit KeyList(int32_t num_keys)
      : end_(num_keys), previous_(num_keys + 1, -1), next_(previous_) {
    previous_[end_] = next_[end_] = end_;
  }

  bool Contains(int32_t key) const { return next_[key] >= 0; }
  void MoveToEnd(int32_t key) {
    Remove(key);
    previous_[key] = previous_[end_];
    next_[key] = end_;
    next_[previous_[end_]] = key;
    previous_[end_] = key;
  }
  void Remove(int32_t key) {
    if (!Contains(key)) return;
    next_[previous_[key]] = next_[key];
    previous_[next_[key]] = previous_[key];
    next_[key] = -1;
  }
  int32_t FirstOf(absl::FunctionRef<bool(int32_t)> wanted) const {
    for (int32_t key = next_[end_]; key != end_; key = next_[key]) {
      if (wanted(key)) return key;
    }
    return -1;
  }

 private:
  const int32_t end_;
  std::vector<int32_t> previous_;
  std::vector<int32_t> next_;  // -1: not in the list
};

class ListPolicy final : public ExpertPolicy {
 public:
  ListPolicy(int32_t num_keys, bool by_use, bool keeps_consumed)
      : by_use_(by_use), keeps_consumed_(keeps_consumed), residents_(num_keys) {}

  void OnUse(int32_t key, int64_t, int32_t) override {
    if (by_use_ && residents_.Contains(key)) residents_.MoveToEnd(key);
  }
  void OnLoad(int32_t key, int64_t) override { residents_.MoveToEnd(key); }
  void OnEvict(int32_t key) override { residents_.Remove(key); }
  int32_t ChooseVictim(int64_t, absl::FunctionRef<bool(int32_t)> evictable) override {
    return residents_.FirstOf(evictable);
  }
  bool keeps_consumed() const override { return keeps_consumed_; }

 private:
  const bool by_use_;
  const bool keeps_consumed_;
  KeyList residents_;
};

class FrequencyPolicy final : public ExpertPolicy {
 public:
  explicit FrequencyPolicy(const PolicyShape& shape)
      : frequency_(shape.num_layers, shape.num_experts) {}

  void OnUse(int32_t key, int64_t tick, int32_t) override { frequency_.OnUse(key, tick); }
  void OnLoad(int32_t key, int64_t) override { frequency_.Add(key); }
  void OnEvict(int32_t key) override { frequency_.Remove(key); }
  int32_t ChooseVictim(int64_t tick, absl::FunctionRef<bool(int32_t)> evictable) override {
    return frequency_.Furthest(tick, evictable).key;
  }

 private:
  UseFrequency frequency_;
};

// Residents by their forecast next use.
class ForecastRanking {
 public:
  ForecastRanking(int32_t num_keys, const UseForecast& forecast)
      : forecast_(forecast), version_(forecast.version()), next_use_(num_keys, kAbsent) {}

  // `key` is resident and was used or loaded at `tick`.
  void Refresh(int32_t key, int64_t tick) {
    Remove(key);
    next_use_[key] = forecast_.NextUse(key, tick);
    ranked_.emplace(next_use_[key], key);
  }
  void Remove(int32_t key) {
    if (Contains(key)) ranked_.erase({next_use_[key], key});
    next_use_[key] = kAbsent;
  }
  bool Contains(int32_t key) const { return next_use_[key] != kAbsent; }
  bool Knows(int32_t key) const { return next_use_[key] != UseForecast::kNever; }

  // Asks again for the residents whose forecast use has passed; for all when the forecast changed.
  void AdvanceTo(int64_t tick) {
    if (version_ != forecast_.version()) {
      version_ = forecast_.version();
      ranked_.clear();
      for (size_t key = 0; key < next_use_.size(); ++key) {
        if (Contains(key)) Refresh(key, tick);
      }
    }
    while (!ranked_.empty() && ranked_.begin()->first <= tick) {
      const int32_t key = ranked_.begin()->second;
      Refresh(key, tick);
      // A forecast that answers with the past is no forecast.
      if (next_use_[key] <= tick) {
        ranked_.erase(ranked_.begin());
        next_use_[key] = UseForecast::kNever;
        ranked_.emplace(next_use_[key], key);
      }
    }
  }

  struct Candidate {
    int32_t key = -1;  // none
    int64_t next_use = 0;
  };
  // The furthest of those for which `wanted` is true; AdvanceTo() was called.
  Candidate Furthest(absl::FunctionRef<bool(int32_t)> wanted) const {
    for (auto it = ranked_.rbegin(); it != ranked_.rend(); ++it) {
      if (wanted(it->second)) return {it->second, it->first};
    }
    return {};
  }

 private:
  static constexpr int64_t kAbsent = -1;

  const UseForecast& forecast_;
  uint64_t version_;
  std::vector<int64_t> next_use_;  // [key]
  absl::btree_set<std::pair<int64_t, int32_t>> ranked_;
};

class BeladyPolicy final : public ExpertPolicy {
 public:
  BeladyPolicy(int32_t num_keys, const UseForecast& forecast) : ranking_(num_keys, forecast) {}

  void OnUse(int32_t key, int64_t tick, int32_t) override {
    if (ranking_.Contains(key)) ranking_.Refresh(key, tick);
  }
  void OnLoad(int32_t key, int64_t tick) override { ranking_.Refresh(key, tick); }
  void OnEvict(int32_t key) override { ranking_.Remove(key); }
  int32_t ChooseVictim(int64_t tick, absl::FunctionRef<bool(int32_t)> evictable) override {
    ranking_.AdvanceTo(tick);
    return ranking_.Furthest(evictable).key;
  }

 private:
  ForecastRanking ranking_;
};

class FuturePolicy final : public ExpertPolicy {
 public:
  FuturePolicy(const PolicyShape& shape, const UseForecast& forecast)
      : ranking_(shape.num_layers * shape.num_experts, forecast),
        frequency_(shape.num_layers, shape.num_experts) {}

  void OnUse(int32_t key, int64_t tick, int32_t) override {
    frequency_.OnUse(key, tick);
    if (ranking_.Contains(key)) ranking_.Refresh(key, tick);
  }
  void OnLoad(int32_t key, int64_t tick) override {
    frequency_.Add(key);
    ranking_.Refresh(key, tick);
  }
  void OnEvict(int32_t key) override {
    frequency_.Remove(key);
    ranking_.Remove(key);
  }
  // What no forecast names is judged by its frequency.
  int32_t ChooseVictim(int64_t tick, absl::FunctionRef<bool(int32_t)> evictable) override {
    ranking_.AdvanceTo(tick);
    const ForecastRanking::Candidate known =
        ranking_.Furthest([&](int32_t key) { return ranking_.Knows(key) && evictable(key); });
    const UseFrequency::Candidate guessed = frequency_.Furthest(
        tick, [&](int32_t key) { return !ranking_.Knows(key) && evictable(key); });
    if (known.key < 0 || guessed.key < 0) return std::max(known.key, guessed.key);
    return static_cast<double>(known.next_use - tick) > guessed.ticks ? known.key : guessed.key;
  }

 private:
  ForecastRanking ranking_;
  UseFrequency frequency_;
};

}  // namespace

absl::StatusOr<ExpertPolicyKind> ParseExpertPolicy(std::string_view name) {
  std::string known;
  for (const auto& [known_name, kind] : kNames) {
    if (name == known_name) return kind;
    known = StrCat(known, known.empty() ? "" : ", ", known_name);
  }
  return absl::InvalidArgumentError(
      StrCat("unknown expert policy '", name, "', expected one of ", known));
}

std::string_view ExpertPolicyName(ExpertPolicyKind kind) {
  for (const auto& [name, known] : kNames) {
    if (kind == known) return name;
  }
  return "unknown";
}

absl::StatusOr<std::unique_ptr<ExpertPolicy>> MakeExpertPolicy(ExpertPolicyKind kind,
                                                               const PolicyShape& shape,
                                                               const UseForecast* forecast) {
  const std::optional<int32_t> num_keys = CheckedMul(shape.num_layers, shape.num_experts);
  if (shape.num_layers <= 0 || shape.num_experts <= 0 || !num_keys) {
    return absl::InvalidArgumentError(StrCat("no expert policy for ", shape.num_layers,
                                             " layers of ", shape.num_experts, " experts"));
  }
  const bool foresees = kind == ExpertPolicyKind::kFuture || kind == ExpertPolicyKind::kBelady;
  if (foresees && forecast == nullptr) {
    return absl::InvalidArgumentError(
        StrCat("expert policy ", ExpertPolicyName(kind), " needs a forecast"));
  }
  switch (kind) {
    case ExpertPolicyKind::kOnDemand:
      return std::make_unique<ListPolicy>(*num_keys, /*by_use=*/false, /*keeps_consumed=*/false);
    case ExpertPolicyKind::kFifo:
      return std::make_unique<ListPolicy>(*num_keys, /*by_use=*/false, /*keeps_consumed=*/true);
    case ExpertPolicyKind::kLru:
      return std::make_unique<ListPolicy>(*num_keys, /*by_use=*/true, /*keeps_consumed=*/true);
    case ExpertPolicyKind::kLfu:
      return std::make_unique<FrequencyPolicy>(shape);
    case ExpertPolicyKind::kFuture:
      return std::make_unique<FuturePolicy>(shape, *forecast);
    case ExpertPolicyKind::kBelady:
      return std::make_unique<BeladyPolicy>(*num_keys, *forecast);
  }
  return absl::InternalError("no such expert policy");
}

}  // namespace moesaic
