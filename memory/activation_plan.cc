#include "memory/activation_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <utility>

#include "base/checked_math.h"

namespace moesaic {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
// Exhaustive search gives up after this many placements, then orders are tried at random.
constexpr int64_t kSearchNodes = 200000;
constexpr int kRandomOrders = 1000;

bool Touches(const std::vector<TensorAccess>& accesses, int32_t tensor) {
  return std::any_of(accesses.begin(), accesses.end(),
                     [&](const TensorAccess& access) { return access.tensor == tensor; });
}

bool Meet(const Lifetime& a, const Lifetime& b) { return a.first <= b.last && b.first <= a.last; }

bool Exists(const ActivationGraph& graph, const Lifetime& life, int32_t tensor) {
  return life.first <= life.last && graph.tensors[tensor].bytes > 0;
}

// The operator that consumes `input` for good and makes `output`, or null.
const ActivationOperator* LastUseMakes(const ActivationGraph& graph,
                                       const std::vector<Lifetime>& lives,
                                       int32_t input,
                                       int32_t output) {
  if (lives[input].last != lives[output].first || graph.tensors[input].output ||
      graph.tensors[output].input) {
    return nullptr;
  }
  const ActivationOperator& op = graph.operators[lives[input].last];
  const bool consumes = Touches(op.reads, input) && !Touches(op.writes, input);
  const bool makes = Touches(op.writes, output) && !Touches(op.reads, output);
  return consumes && makes ? &op : nullptr;
}

// Blocks of memory to place, and how each two may lie.
struct Problem {
  std::vector<int64_t> bytes;
  std::vector<PlacementRule> rules;  // [blocks * blocks]

  int size() const { return static_cast<int>(bytes.size()); }
  const PlacementRule& rule(int a, int b) const { return rules[a * size() + b]; }
};

class Search {
 public:
  Search(const Problem& problem, int64_t lower_bound)
      : problem_(problem), lower_bound_(lower_bound), offsets_(problem.size()) {
    order_.resize(problem.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int a, int b) { return problem.bytes[a] > problem.bytes[b]; });
  }

  void Run() {
    TryOrder(order_);
    if (best_peak_ == lower_bound_) return;
    std::vector<int> rest = order_;
    placed_.clear();
    Extend(rest, 0);
    if (nodes_ < kSearchNodes) return;
    std::mt19937 random(1);
    for (int i = 0; i < kRandomOrders && best_peak_ > lower_bound_; ++i) {
      std::vector<int> order = order_;
      const size_t from = random() % order.size();
      const size_t to = random() % order.size();
      std::swap(order[from], order[to]);
      if (TryOrder(order)) order_ = order;
    }
  }

  int64_t best_peak() const { return best_peak_; }
  const std::vector<int64_t>& best() const { return best_; }

 private:
  bool Fits(int block, int64_t offset) const {
    return std::all_of(placed_.begin(), placed_.end(), [&](int other) {
      return MayLie(problem_.rule(block, other), block, offset, problem_.bytes[block], other,
                    offsets_[other], problem_.bytes[other]);
    });
  }

  int64_t LowestOffset(int block) const {
    std::vector<int64_t> candidates = {0};
    for (const int other : placed_) {
      const PlacementRule& rule = problem_.rule(block, other);
      if (rule.kind == PlacementRule::kFree) continue;
      candidates.push_back(offsets_[other] + problem_.bytes[other]);
      if (rule.kind == PlacementRule::kInPlace) candidates.push_back(offsets_[other]);
      if (rule.kind == PlacementRule::kTrail && rule.upper == block) {
        candidates.push_back(offsets_[other] + rule.distance);
      }
    }
    std::sort(candidates.begin(), candidates.end());
    return *std::find_if(candidates.begin(), candidates.end(),
                         [&](int64_t offset) { return Fits(block, offset); });
  }

  // Every block in turn at the lowest offset. True when that is no worse than the best.
  bool TryOrder(const std::vector<int>& order) {
    placed_.clear();
    int64_t peak = 0;
    for (const int block : order) {
      offsets_[block] = LowestOffset(block);
      placed_.push_back(block);
      peak = std::max(peak, offsets_[block] + problem_.bytes[block]);
    }
    return Keep(peak);
  }

  bool Keep(int64_t peak) {
    if (peak < best_peak_) {
      best_peak_ = peak;
      best_ = offsets_;
    }
    return peak <= best_peak_;
  }

  // All orders. Some order of lowest offsets is optimal: sort an optimal placement by offset.
  void Extend(std::vector<int>& rest, int64_t peak) {
    if (rest.empty()) {
      Keep(peak);
      return;
    }
    for (size_t i = 0; i < rest.size(); ++i) {
      if (++nodes_ >= kSearchNodes || best_peak_ == lower_bound_) return;
      const int block = rest[i];
      const int64_t offset = LowestOffset(block);
      const int64_t end = std::max(peak, offset + problem_.bytes[block]);
      if (end >= best_peak_) continue;
      offsets_[block] = offset;
      placed_.push_back(block);
      rest.erase(rest.begin() + i);
      Extend(rest, end);
      rest.insert(rest.begin() + i, block);
      placed_.pop_back();
      offsets_[block] = offset;
    }
  }

  const Problem& problem_;
  const int64_t lower_bound_;
  std::vector<int> order_;
  std::vector<int> placed_;
  std::vector<int64_t> offsets_;
  std::vector<int64_t> best_;
  int64_t best_peak_ = kNoLimit;
  int64_t nodes_ = 0;
};

// Tensors of equal size that may lie in place become one block where `merge` says so.
std::vector<int> MergeInPlace(const std::vector<PlacementRule>& rules,
                              const std::vector<int64_t>& bytes,
                              const std::vector<bool>& exists,
                              bool merge) {
  const int n = static_cast<int>(bytes.size());
  std::vector<int> block(n, -1);
  int blocks = 0;
  for (int t = 0; t < n; ++t) {
    if (!exists[t]) continue;
    for (int u = 0; merge && u < t && block[t] < 0; ++u) {
      if (block[u] < 0 || bytes[u] != bytes[t]) continue;
      bool fits = false;
      for (int v = 0; v < t; ++v) {
        if (block[v] != block[u]) continue;
        const PlacementRule::Kind kind = rules[t * n + v].kind;
        if (kind != PlacementRule::kFree && kind != PlacementRule::kInPlace) {
          fits = false;
          break;
        }
        fits = fits || kind == PlacementRule::kInPlace;
      }
      if (fits) block[t] = block[u];
    }
    if (block[t] < 0) block[t] = blocks++;
  }
  return block;
}

// The rule that satisfies both; `a` and `b` speak of the same two blocks.
PlacementRule Stricter(const PlacementRule& a, const PlacementRule& b) {
  if (a.kind == PlacementRule::kFree) return b;
  if (b.kind == PlacementRule::kFree) return a;
  if (a.kind == b.kind && a.upper == b.upper) return a.distance > b.distance ? a : b;
  return {PlacementRule::kDisjoint};
}

std::vector<int64_t> RoundedBytes(const ActivationGraph& graph, int64_t alignment) {
  std::vector<int64_t> bytes;
  for (const ActivationTensor& tensor : graph.tensors) {
    bytes.push_back(RoundUp(tensor.bytes, alignment));
  }
  return bytes;
}

ActivationPlan MakePlan(std::vector<int64_t> offsets,
                        std::span<const int64_t> bytes,
                        const std::vector<bool>& exists) {
  ActivationPlan plan = {.offsets = std::move(offsets)};
  for (size_t t = 0; t < bytes.size(); ++t) {
    if (exists[t]) plan.peak_bytes = std::max(plan.peak_bytes, plan.offsets[t] + bytes[t]);
  }
  return plan;
}

std::vector<bool> Existing(const ActivationGraph& graph, const std::vector<Lifetime>& lives) {
  std::vector<bool> exists;
  for (size_t t = 0; t < lives.size(); ++t) exists.push_back(Exists(graph, lives[t], t));
  return exists;
}

// The smallest gap between `taken` (sorted ranges) that holds `bytes`, else behind the last.
int64_t BestFit(std::vector<std::pair<int64_t, int64_t>> taken, int64_t bytes) {
  std::sort(taken.begin(), taken.end());
  int64_t end = 0;
  int64_t best = -1;
  int64_t best_gap = kNoLimit;
  for (const auto& [first, last] : taken) {
    const int64_t gap = first - end;
    if (gap >= bytes && gap < best_gap) {
      best = end;
      best_gap = gap;
    }
    end = std::max(end, last);
  }
  return best >= 0 ? best : end;
}

}  // namespace

std::vector<PlacementRule> PlacementRules(const ActivationGraph& graph, int64_t alignment) {
  const int32_t n = static_cast<int32_t>(graph.tensors.size());
  const std::vector<Lifetime> lives = Lifetimes(graph);
  std::vector<PlacementRule> rules(static_cast<size_t>(n) * n);
  const auto overlap = [&](int32_t input, int32_t output) -> PlacementRule {
    const ActivationOperator* op = LastUseMakes(graph, lives, input, output);
    if (op == nullptr) return {PlacementRule::kDisjoint};
    if (op->parallel_dims == 0) {
      const int64_t distance = TrailDistance(graph, *op, input, output);
      return {PlacementRule::kTrail, input, RoundUp(distance, alignment)};
    }
    return {MayRunInPlace(*op, input, output) ? PlacementRule::kInPlace : PlacementRule::kDisjoint};
  };
  for (int32_t a = 0; a < n; ++a) {
    for (int32_t b = 0; b < a; ++b) {
      if (!Exists(graph, lives[a], a) || !Exists(graph, lives[b], b) || !Meet(lives[a], lives[b])) {
        continue;
      }
      PlacementRule rule = overlap(a, b);
      if (rule.kind == PlacementRule::kDisjoint) rule = overlap(b, a);
      rules[a * n + b] = rules[b * n + a] = rule;
    }
  }
  return rules;
}

bool MayLie(const PlacementRule& rule,
            int32_t a,
            int64_t a_offset,
            int64_t a_bytes,
            int32_t /*b*/,
            int64_t b_offset,
            int64_t b_bytes) {
  if (a_offset + a_bytes <= b_offset || b_offset + b_bytes <= a_offset) return true;
  switch (rule.kind) {
    case PlacementRule::kFree:
      return true;
    case PlacementRule::kDisjoint:
      return false;
    case PlacementRule::kInPlace:
      return a_offset == b_offset;
    case PlacementRule::kTrail:
      return (rule.upper == a ? a_offset - b_offset : b_offset - a_offset) >= rule.distance;
  }
  return false;
}

ActivationPlan PlanActivations(const ActivationGraph& graph, int64_t alignment) {
  const int n = static_cast<int>(graph.tensors.size());
  const std::vector<PlacementRule> rules = PlacementRules(graph, alignment);
  const std::vector<int64_t> bytes = RoundedBytes(graph, alignment);
  const std::vector<bool> exists = Existing(graph, Lifetimes(graph));
  const int64_t lower_bound = PeakLowerBound(graph, alignment);

  ActivationPlan best = GreedyPlan(graph, alignment);
  for (const bool merge : {true, false}) {
    const std::vector<int> block = MergeInPlace(rules, bytes, exists, merge);
    Problem problem;
    problem.bytes.resize(1 +
                         std::max(-1, n == 0 ? -1 : *std::max_element(block.begin(), block.end())));
    problem.rules.resize(static_cast<size_t>(problem.size()) * problem.size());
    for (int a = 0; a < n; ++a) {
      if (block[a] < 0) continue;
      problem.bytes[block[a]] = bytes[a];
      for (int b = 0; b < n; ++b) {
        if (block[b] < 0 || block[a] == block[b]) continue;
        PlacementRule rule = rules[a * n + b];
        if (rule.upper >= 0) rule.upper = block[rule.upper];
        PlacementRule& both = problem.rules[block[a] * problem.size() + block[b]];
        both = Stricter(both, rule);
      }
    }
    Search search(problem, lower_bound);
    search.Run();
    if (problem.size() == 0 || search.best_peak() >= best.peak_bytes) continue;
    std::vector<int64_t> offsets(n);
    for (int t = 0; t < n; ++t) {
      if (block[t] >= 0) offsets[t] = search.best()[block[t]];
    }
    best = MakePlan(std::move(offsets), bytes, exists);
  }
  return best;
}

ActivationPlan GreedyPlan(const ActivationGraph& graph, int64_t alignment) {
  const std::vector<Lifetime> lives = Lifetimes(graph);
  const std::vector<int64_t> bytes = RoundedBytes(graph, alignment);
  const std::vector<bool> exists = Existing(graph, lives);
  std::vector<int> order(bytes.size());
  std::iota(order.begin(), order.end(), 0);

  ActivationPlan best = {.peak_bytes = kNoLimit};
  for (const bool by_size : {true, false}) {
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return by_size ? bytes[a] > bytes[b] : lives[a].first < lives[b].first;
    });
    std::vector<int64_t> offsets(bytes.size());
    std::vector<int> placed;
    for (const int t : order) {
      if (!exists[t]) continue;
      std::vector<std::pair<int64_t, int64_t>> taken;
      for (const int other : placed) {
        if (Meet(lives[t], lives[other])) {
          taken.emplace_back(offsets[other], offsets[other] + bytes[other]);
        }
      }
      offsets[t] = BestFit(std::move(taken), bytes[t]);
      placed.push_back(t);
    }
    ActivationPlan plan = MakePlan(std::move(offsets), bytes, exists);
    if (plan.peak_bytes < best.peak_bytes) best = std::move(plan);
  }
  return best;
}

ActivationPlan OneBufferPerTensor(const ActivationGraph& graph, int64_t alignment) {
  const std::vector<int64_t> bytes = RoundedBytes(graph, alignment);
  const std::vector<bool> exists = Existing(graph, Lifetimes(graph));
  std::vector<int64_t> offsets(bytes.size());
  int64_t used = 0;
  for (size_t t = 0; t < bytes.size(); ++t) {
    if (!exists[t]) continue;
    offsets[t] = used;
    used += bytes[t];
  }
  return MakePlan(std::move(offsets), bytes, exists);
}

int64_t PeakLowerBound(const ActivationGraph& graph, int64_t alignment) {
  const int32_t n = static_cast<int32_t>(graph.tensors.size());
  const std::vector<Lifetime> lives = Lifetimes(graph);
  const std::vector<int64_t> bytes = RoundedBytes(graph, alignment);
  const std::vector<PlacementRule> rules = PlacementRules(graph, alignment);
  int64_t bound = 0;
  for (int32_t o = 0; o < static_cast<int32_t>(graph.operators.size()); ++o) {
    const Lifetime now = {o, o};
    int64_t needed = 0;
    for (int32_t a = 0; a < n; ++a) {
      if (!Exists(graph, lives[a], a) || !Meet(lives[a], now)) continue;
      needed += bytes[a];
      for (int32_t b = 0; b < a; ++b) {
        if (!Exists(graph, lives[b], b) || !Meet(lives[b], now)) continue;
        // What two tensors share at most; more than two share no more than all their pairs.
        const PlacementRule& rule = rules[a * n + b];
        if (rule.kind == PlacementRule::kInPlace) needed -= std::min(bytes[a], bytes[b]);
        if (rule.kind == PlacementRule::kTrail) {
          const int64_t lower = rule.upper == a ? bytes[b] : bytes[a];
          const int64_t upper = rule.upper == a ? bytes[a] : bytes[b];
          needed -= std::clamp<int64_t>(lower - rule.distance, 0, upper);
        }
      }
    }
    bound = std::max(bound, needed);
  }
  return bound;
}

}  // namespace moesaic
