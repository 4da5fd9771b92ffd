#include "tools/bench/replay.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic::bench {
namespace {

class Simulation {
 public:
  Simulation(const TraceUses& uses,
             const ReplayTimes& times,
             const ReplayOptions& options,
             std::unique_ptr<ExpertPolicy> policy)
      : uses_(uses),
        times_(times),
        options_(options),
        copy_s_(static_cast<double>(times.stripe_bytes) / times.link_bytes_per_s),
        policy_(std::move(policy)),
        free_(options.budget_stripes),
        experts_(static_cast<size_t>(uses.shape().num_layers) * uses.shape().num_experts) {}

  ReplayResult Run() {
    for (int64_t tick = 0; tick < uses_.num_ticks(); ++tick) {
      // What the layer needs is not known yet: prefetches go on as of the tick before.
      RunLink(now_, now_ + times_.dense_layer_s);
      now_ += times_.dense_layer_s;
      tick_ = tick;
      RunExperts();
    }
    result_.time_s = now_;
    return result_;
  }

 private:
  struct Expert {
    std::vector<double> ready;    // when each held stripe landed or will; those held are a prefix
    int32_t unused_prefetch = 0;  // of the held stripes, the last so many
    bool needed = false;          // by this layer, and not consumed
    bool pinned = false;          // by this layer
  };
  struct Prefetch {
    int32_t key = 0;
    int64_t tick = 0;
  };

  double StripeSeconds(int32_t rows) const {
    return std::max(times_.stripe_s, rows * times_.stripe_row_s);
  }

  void RunExperts() {
    // The gate has chosen.
    std::vector<KeyRows> missing;
    const std::vector<KeyRows>& chosen = uses_.At(tick_);
    for (const KeyRows& use : chosen) {
      policy_->OnUse(use.key, tick_, use.rows);
      experts_[use.key].needed = true;
    }
    double compute_s = 0;
    std::vector<std::pair<double, double>> landing;  // when, and the seconds that follow
    for (const KeyRows& use : chosen) {
      Expert& expert = experts_[use.key];
      const auto held = static_cast<int32_t>(expert.ready.size());
      result_.used_stripes += times_.stripes_per_expert;
      for (const double ready : expert.ready) {
        if (ready <= now_) {
          ++result_.hit_stripes;
          compute_s += StripeSeconds(use.rows);
        } else {
          ++result_.late_stripes;
          landing.emplace_back(ready, StripeSeconds(use.rows));
        }
      }
      expert.unused_prefetch = 0;
      expert.pinned = held > 0 && options_.pin_residents;
      if (held < times_.stripes_per_expert) {
        missing.push_back(use);
      } else {
        expert.needed = false;
      }
    }
    // Most rows first, as the engine demands them.
    std::stable_sort(missing.begin(), missing.end(),
                     [](const KeyRows& a, const KeyRows& b) { return a.rows > b.rows; });
    for (const KeyRows& use : missing) {
      Expert& expert = experts_[use.key];
      ++result_.demand_experts;
      // The prefix that is held is consumed while the rest is on its way.
      const auto held = static_cast<int32_t>(expert.ready.size());
      for (int32_t stripe = held; stripe < times_.stripes_per_expert; ++stripe) {
        const double start = std::max(link_free_, now_);
        link_free_ = start + copy_s_;
        ++result_.demand_stripes;
        Load(use.key, link_free_, /*prefetch=*/false);
        landing.emplace_back(link_free_, StripeSeconds(use.rows));
      }
      expert.needed = false;
    }
    PlanPrefetches();
    const double routed = now_;
    now_ += compute_s;
    std::sort(landing.begin(), landing.end());
    for (const auto& [ready, seconds] : landing) {
      if (ready > now_) {
        result_.stall_s += ready - now_;
        now_ = ready;
      }
      now_ += seconds;
    }
    RunLink(routed, now_);
    for (const KeyRows& use : chosen) {
      experts_[use.key].pinned = false;
      if (!policy_->keeps_consumed()) Drop(use.key);
    }
  }

  // Gives one more stripe of `key` a slot; a prefetch may fail to get one.
  bool Load(int32_t key, double ready, bool prefetch) {
    if (free_ == 0 && !EvictFor(key, prefetch)) {
      return false;  // a demand streams through the window
    }
    --free_;
    Expert& expert = experts_[key];
    if (expert.ready.empty()) policy_->OnLoad(key, tick_);
    expert.ready.push_back(ready);
    if (prefetch) ++expert.unused_prefetch;
    return true;
  }

  bool EvictFor(int32_t key, bool prefetch) {
    const auto idle = [&](int32_t other) {
      const Expert& expert = experts_[other];
      return other != key && !expert.needed && !expert.pinned;
    };
    int32_t victim = -1;
    if (prefetch) {
      // A prefetch never takes what is needed before it.
      victim = policy_->ChooseVictim(tick_, [&](int32_t other) {
        return idle(other) && uses_.NextUse(other, tick_) > prefetch_tick_;
      });
    } else {
      victim = policy_->ChooseVictim(tick_, idle);
      // Too small for what the layer uses: consumed residents, then the expert's own consumed
      // stripes.
      if (victim < 0) {
        victim = policy_->ChooseVictim(
            tick_, [&](int32_t other) { return other != key && !experts_[other].needed; });
      }
    }
    if (victim < 0) return false;
    DropStripe(victim);
    return true;
  }

  void DropStripe(int32_t key) {
    Expert& expert = experts_[key];
    expert.ready.pop_back();
    ++free_;
    if (expert.unused_prefetch > 0) {
      --expert.unused_prefetch;
      ++result_.wasted_stripes;
    }
    if (expert.ready.empty()) policy_->OnEvict(key);
  }

  void Drop(int32_t key) {
    while (!experts_[key].ready.empty()) DropStripe(key);
  }

  void PlanPrefetches() {
    plan_.clear();
    const int64_t last = std::min(tick_ + options_.lookahead, uses_.num_ticks() - 1);
    for (int64_t tick = tick_ + 1; tick <= last; ++tick) {
      for (const KeyRows& use : uses_.At(tick)) plan_.push_back({use.key, tick});
    }
    next_prefetch_ = 0;
  }

  // Starts the planned prefetches that the link has time to start in [begin, end).
  void RunLink(double begin, double end) {
    while (next_prefetch_ < plan_.size()) {
      const Prefetch& prefetch = plan_[next_prefetch_];
      const Expert& expert = experts_[prefetch.key];
      if (static_cast<int32_t>(expert.ready.size()) == times_.stripes_per_expert) {
        ++next_prefetch_;
        continue;
      }
      const double start = std::max(link_free_, begin);
      if (start >= end) return;
      prefetch_tick_ = prefetch.tick;
      if (!Load(prefetch.key, start + copy_s_, /*prefetch=*/true)) return;
      link_free_ = start + copy_s_;
      ++result_.prefetched_stripes;
    }
  }

  const TraceUses& uses_;
  const ReplayTimes& times_;
  const ReplayOptions& options_;
  const double copy_s_;
  const std::unique_ptr<ExpertPolicy> policy_;
  int64_t free_;
  std::vector<Expert> experts_;  // [key]
  int64_t tick_ = 0;
  double now_ = 0;
  double link_free_ = 0;  // when the copies so far are done
  std::vector<Prefetch> plan_;
  size_t next_prefetch_ = 0;
  int64_t prefetch_tick_ = 0;
  ReplayResult result_;
};

}  // namespace

absl::StatusOr<ReplayResult> Replay(const TraceUses& uses,
                                    const ReplayTimes& times,
                                    const ReplayOptions& options) {
  if (options.budget_stripes < 1) {
    return absl::InvalidArgumentError(
        StrCat("a budget of ", options.budget_stripes, " stripes holds none"));
  }
  MOESAIC_ASSIGN_OR_RETURN(std::unique_ptr<ExpertPolicy> policy,
                           MakeExpertPolicy(options.policy, uses.shape(), &uses));
  return Simulation(uses, times, options, std::move(policy)).Run();
}

absl::StatusOr<int64_t> OptimalStripes(const TraceUses& uses,
                                       int32_t stripes_per_expert,
                                       int64_t budget_stripes) {
  ReplayTimes times;
  times.stripes_per_expert = stripes_per_expert;
  ReplayOptions options;
  options.policy = ExpertPolicyKind::kBelady;
  options.budget_stripes = budget_stripes;
  options.pin_residents = false;
  MOESAIC_ASSIGN_OR_RETURN(const ReplayResult result, Replay(uses, times, options));
  return result.loaded_stripes();
}

}  // namespace moesaic::bench
