#include "memory/activation_plan.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "memory/activation_replay.h"

namespace moesaic {
namespace {

// The least peak over all offsets that keep every rule, by enumeration.
int64_t BruteForcePeak(const ActivationGraph& graph, int64_t upper_bound) {
  const int n = static_cast<int>(graph.tensors.size());
  const std::vector<PlacementRule> rules = PlacementRules(graph, 1);
  std::vector<int64_t> offsets(n);
  int64_t best = upper_bound;
  const std::function<void(int)> place = [&](int t) {
    if (t == n) {
      int64_t peak = 0;
      for (int u = 0; u < n; ++u) peak = std::max(peak, offsets[u] + graph.tensors[u].bytes);
      best = std::min(best, peak);
      return;
    }
    for (offsets[t] = 0; offsets[t] + graph.tensors[t].bytes < best; ++offsets[t]) {
      bool fits = true;
      for (int u = 0; u < t && fits; ++u) {
        fits = MayLie(rules[t * n + u], t, offsets[t], graph.tensors[t].bytes, u, offsets[u],
                      graph.tensors[u].bytes);
      }
      if (fits) place(t + 1);
    }
  };
  place(0);
  return best;
}

// The same as an integer program: one binary choice for each pair of tensors (one above the other,
// the other way, or overlapping as the rule lets them), by branch and bound. With all choices made
// it is a linear program of differences of offsets, whose least solution is the longest path.
class IntegerProgram {
 public:
  explicit IntegerProgram(const ActivationGraph& graph) : n_(graph.tensors.size()) {
    for (const ActivationTensor& tensor : graph.tensors) bytes_.push_back(tensor.bytes);
    const std::vector<PlacementRule> rules = PlacementRules(graph, 1);
    for (int a = 0; a < n_; ++a) {
      for (int b = 0; b < a; ++b) {
        const PlacementRule& rule = rules[a * n_ + b];
        if (rule.kind == PlacementRule::kFree) continue;
        std::vector<Choice> choices = {{{b, a, bytes_[b]}}, {{a, b, bytes_[a]}}};
        if (rule.kind == PlacementRule::kInPlace) choices.push_back({{a, b, 0}, {b, a, 0}});
        if (rule.kind == PlacementRule::kTrail) {
          choices.push_back({{rule.upper == a ? b : a, rule.upper, rule.distance}});
        }
        pairs_.push_back(choices);
      }
    }
  }

  int64_t Solve() {
    Branch(0);
    return best_;
  }

 private:
  struct Edge {  // offset[to] >= offset[from] + distance
    int from;
    int to;
    int64_t distance;
  };
  using Choice = std::vector<Edge>;

  // The peak under the edges chosen so far: a bound on every completion.
  int64_t Relaxed() const {
    std::vector<int64_t> offsets(n_);
    for (int round = 0; round <= n_; ++round) {
      bool changed = false;
      for (const Edge& edge : edges_) {
        const int64_t least = offsets[edge.from] + edge.distance;
        if (offsets[edge.to] < least) {
          offsets[edge.to] = least;
          changed = true;
        }
      }
      if (!changed) {
        int64_t peak = 0;
        for (int t = 0; t < n_; ++t) peak = std::max(peak, offsets[t] + bytes_[t]);
        return peak;
      }
    }
    return std::numeric_limits<int64_t>::max();  // a cycle: infeasible
  }

  void Branch(size_t pair) {
    const int64_t bound = Relaxed();
    if (bound >= best_) return;
    if (pair == pairs_.size()) {
      best_ = bound;
      return;
    }
    for (const Choice& choice : pairs_[pair]) {
      edges_.insert(edges_.end(), choice.begin(), choice.end());
      Branch(pair + 1);
      edges_.resize(edges_.size() - choice.size());
    }
  }

  const int n_;
  std::vector<int64_t> bytes_;
  std::vector<std::vector<Choice>> pairs_;
  std::vector<Edge> edges_;
  int64_t best_ = std::numeric_limits<int64_t>::max();
};

// A few operators over a few tensors, each reading one or two earlier ones.
ActivationGraph RandomGraph(std::mt19937& random, bool parallel) {
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  ActivationGraph graph;
  const int64_t rows = 1 + below(3);
  const auto add = [&] { return graph.Add("t", rows * (1 + below(3))); };
  graph.tensors[add()].input = true;
  for (int64_t o = 2 + below(2); o > 0; --o) {
    const int32_t tensors = static_cast<int32_t>(graph.tensors.size());
    std::vector<RowOperand> inputs = {{tensors - 1, 0}};
    if (below(3) == 0 && tensors > 1)
      inputs.push_back({static_cast<int32_t>(below(tensors - 1)), 0});
    RowOperand output = {add(), 0};
    for (RowOperand& input : inputs) input.row_bytes = graph.tensors[input.tensor].bytes / rows;
    output.row_bytes = graph.tensors[output.tensor].bytes / rows;
    if (inputs.size() == 1 && below(2) == 0) {
      graph.operators.push_back(FullyConnected("fc", rows, inputs[0], output, 1));
    } else {
      graph.operators.push_back(RowWise("rows", rows, inputs, {output}, parallel && below(2) == 0));
    }
    if (below(3) == 0 && graph.tensors.size() < 5) {
      graph.operators.back().workspace = {graph.Add("workspace", 1 + below(3))};
      // The next operator reads a tensor of whole rows.
      const int32_t last = add();
      graph.operators.push_back(
          RowWise("rows", rows, {output}, {{last, graph.tensors[last].bytes / rows}}, false));
    }
  }
  graph.tensors.back().output = true;
  return graph;
}

void ExpectSane(const ActivationGraph& graph, const ActivationPlan& plan, int64_t alignment) {
  EXPECT_TRUE(ReplayAccesses(graph, plan).ok()) << ReplayAccesses(graph, plan);
  EXPECT_GE(plan.peak_bytes, PeakLowerBound(graph, alignment));
  const ActivationPlan greedy = GreedyPlan(graph, alignment);
  EXPECT_TRUE(ReplayAccesses(graph, greedy).ok()) << ReplayAccesses(graph, greedy);
  EXPECT_LE(plan.peak_bytes, greedy.peak_bytes);
  EXPECT_LE(greedy.peak_bytes, OneBufferPerTensor(graph, alignment).peak_bytes);
  for (const int64_t offset : plan.offsets) EXPECT_EQ(offset % alignment, 0);
}

TEST(ActivationPlanTest, FullyConnectedLayersNeedTheClosedForm) {
  for (const int64_t m : {1, 2, 3, 7, 32}) {
    for (const int64_t k : {1, 2, 5, 16}) {
      for (const int64_t n : {1, 3, 5, 24}) {
        ActivationGraph graph;
        graph.tensors[graph.Add("in", m * k)].input = true;
        graph.tensors[graph.Add("out", m * n)].output = true;
        graph.operators = {FullyConnected("fc", m, {0, k}, {1, n}, 1)};
        const ActivationPlan plan = PlanActivations(graph, 1);
        EXPECT_EQ(plan.peak_bytes, std::max(m * n, m * k) + std::min(n, k) - 1);
        ExpectSane(graph, plan, 1);
        if (m * (k + n) <= 64) {
          // No pool is smaller, whatever the offsets.
          for (int64_t in = 0; in + m * k < plan.peak_bytes; ++in) {
            for (int64_t out = 0; out + m * n < plan.peak_bytes; ++out) {
              EXPECT_FALSE(ReplayAccesses(graph, {{in, out}, plan.peak_bytes - 1}).ok());
            }
          }
        }
      }
    }
  }
}

TEST(ActivationPlanTest, IsOptimalOnSmallGraphs) {
  std::mt19937 random(11);
  int below_greedy = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const ActivationGraph graph = RandomGraph(random, trial % 2 == 0);
    const ActivationPlan plan = PlanActivations(graph, 1);
    ExpectSane(graph, plan, 1);
    EXPECT_EQ(plan.peak_bytes, IntegerProgram(graph).Solve()) << "trial " << trial;
    if (graph.tensors.size() <= 5) {
      EXPECT_EQ(plan.peak_bytes, BruteForcePeak(graph, GreedyPlan(graph, 1).peak_bytes))
          << "trial " << trial;
    }
    below_greedy += plan.peak_bytes < GreedyPlan(graph, 1).peak_bytes;
  }
  EXPECT_GT(below_greedy, 200);
}

// More tensors than can be searched: the plan must still be sound and no worse than greedy.
TEST(ActivationPlanTest, HoldsOnLargeGraphs) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 5; ++trial) {
    ActivationGraph graph;
    for (int t = 0; t < 24; ++t) graph.Add("t", 64 * (1 + random() % 7));
    graph.tensors[0].input = true;
    graph.tensors[23].output = true;
    for (int32_t t = 1; t < 24; ++t) {
      std::vector<RowOperand> inputs = {{t - 1, graph.tensors[t - 1].bytes / 8}};
      if (t > 3) inputs.push_back({t - 3, graph.tensors[t - 3].bytes / 8});
      graph.operators.push_back(RowWise("op", 8, inputs, {{t, graph.tensors[t].bytes / 8}},
                                        /*parallel=*/t % 3 == 0));
    }
    const ActivationPlan plan = PlanActivations(graph);
    ExpectSane(graph, plan, kActivationAlignment);
    EXPECT_EQ(plan.offsets, PlanActivations(graph).offsets) << "deterministic";
  }
}

// Operators in a row that run in place need one buffer.
TEST(ActivationPlanTest, ChainsInPlace) {
  ActivationGraph graph;
  for (int t = 0; t < 4; ++t) graph.Add("t", 640);
  graph.tensors[0].input = true;
  graph.tensors[3].output = true;
  for (int32_t t = 1; t < 4; ++t) {
    graph.operators.push_back(RowWise("op", 10, {{t - 1, 64}}, {{t, 64}}, /*parallel=*/true));
  }
  EXPECT_EQ(PlanActivations(graph).peak_bytes, 640);
  EXPECT_EQ(GreedyPlan(graph).peak_bytes, 1280);
  EXPECT_EQ(OneBufferPerTensor(graph).peak_bytes, 2560);
  ExpectSane(graph, PlanActivations(graph), kActivationAlignment);
}

// Fewer rows than planned use the head of each tensor: what trails still trails.
TEST(ActivationPlanTest, ServesSmallerSteps) {
  for (const std::pair<int64_t, int64_t> widths : {std::pair{64, 192}, {192, 64}, {128, 128}}) {
    const int64_t k = widths.first;
    const int64_t n = widths.second;
    const auto chain = [&](int64_t rows) {
      ActivationGraph graph;
      graph.tensors[graph.Add("x", rows * k)].input = true;
      graph.Add("y", rows * n);
      graph.tensors[graph.Add("z", rows * k)].output = true;
      graph.operators = {FullyConnected("up", rows, {0, k}, {1, n}, 64),
                         FullyConnected("down", rows, {1, n}, {2, k}, 64)};
      return graph;
    };
    const ActivationPlan plan = PlanActivations(chain(16));
    for (int64_t rows = 1; rows <= 16; ++rows) {
      EXPECT_TRUE(ReplayAccesses(chain(rows), plan).ok()) << rows;
    }
  }
}

TEST(ActivationPlanTest, OfNothingIsNothing) {
  EXPECT_EQ(PlanActivations({}).peak_bytes, 0);
  ActivationGraph graph;
  graph.Add("unused", 100);
  EXPECT_EQ(PlanActivations(graph).peak_bytes, 0);
  EXPECT_EQ(OneBufferPerTensor(graph).peak_bytes, 0);
}

}  // namespace
}  // namespace moesaic
