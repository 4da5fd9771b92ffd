// Also covers activation_replay.

#include "memory/activation_graph.h"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "memory/activation_plan.h"
#include "memory/activation_replay.h"

namespace moesaic {
namespace {

ActivationGraph OneOperator(int64_t input_bytes, int64_t output_bytes) {
  ActivationGraph graph;
  graph.tensors[graph.Add("in", input_bytes)].input = true;
  graph.tensors[graph.Add("out", output_bytes)].output = true;
  return graph;
}

// The least distance at which a replay of every access finds nothing overwritten.
int64_t ReplayedDistance(const ActivationGraph& graph) {
  const int64_t output = graph.tensors[1].bytes;
  for (int64_t distance = 0;; ++distance) {
    const ActivationPlan plan = {{distance, 0},
                                 std::max(output, distance + graph.tensors[0].bytes)};
    if (ReplayAccesses(graph, plan).ok()) return distance;
  }
}

TEST(TrailDistanceTest, OfFullyConnectedLayersIsTheClosedForm) {
  for (int64_t m = 1; m <= 5; ++m) {
    for (int64_t k = 1; k <= 6; ++k) {
      for (int64_t n = 1; n <= 6; ++n) {
        ActivationGraph graph = OneOperator(m * k, m * n);
        graph.operators = {FullyConnected("fc", m, {0, k}, {1, n}, 1)};
        const int64_t distance = TrailDistance(graph, graph.operators[0], 0, 1);
        EXPECT_EQ(distance, n <= k ? n - 1 : (n - k) * (m - 1) + n - 1);
        EXPECT_EQ(distance, ReplayedDistance(graph)) << m << " " << k << " " << n;
        const int64_t footprint = std::max(m * n, distance + m * k);
        EXPECT_EQ(footprint, std::max(m * n, m * k) + std::min(n, k) - 1);
      }
    }
  }
}

// Two rows of three segments become two of two: 7 segments instead of 10, the paper's example.
TEST(TrailDistanceTest, OfThePapersExample) {
  ActivationGraph graph = OneOperator(6, 4);
  graph.operators = {FullyConnected("fc", 2, {0, 3}, {1, 2}, 1)};
  EXPECT_EQ(PlanActivations(graph, 1).peak_bytes, 7);
  EXPECT_EQ(OneBufferPerTensor(graph, 1).peak_bytes, 10);
}

TEST(TrailDistanceTest, OfRandomAccessesIsTheWorstPairOfIterations) {
  std::mt19937 random(5);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  for (int trial = 0; trial < 300; ++trial) {
    ActivationOperator op = {.name = "op", .domain = {1 + below(3), 1 + below(4), 1 + below(3)}};
    TensorAccess read = {0, 1 + below(4), {below(9), below(5), below(4)}, below(3) - 1};
    TensorAccess write = {1, 1 + below(4), {below(9), below(5), below(4)}, 0};
    op.reads = {read};
    op.writes = {write};
    ActivationGraph graph = OneOperator(1000, 1000);
    graph.operators = {op};
    std::vector<std::vector<int64_t>> points;
    for (int64_t a = 0; a < op.domain[0]; ++a) {
      for (int64_t b = 0; b < op.domain[1]; ++b) {
        for (int64_t c = 0; c < op.domain[2]; ++c) points.push_back({a, b, c});
      }
    }
    const auto at = [](const TensorAccess& access, const std::vector<int64_t>& point) {
      int64_t offset = access.offset;
      for (int d = 0; d < 3; ++d) offset += access.strides[d] * point[d];
      return offset;
    };
    int64_t worst = 0;
    for (size_t i = 0; i < points.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        worst = std::max(worst, at(write, points[j]) + write.bytes - at(read, points[i]));
      }
    }
    EXPECT_EQ(TrailDistance(graph, op, 0, 1), worst);
  }
}

TEST(TrailDistanceTest, OfWindowsIsSafe) {
  for (const int64_t stride : {1, 2}) {
    for (const int64_t window : {1, 3, 5}) {
      for (const auto& [c, k] : {std::pair<int64_t, int64_t>{2, 2}, {1, 3}, {3, 1}}) {
        const ImageShape in = {6, 8, c};
        const ImageShape out = {6 / stride, 8 / stride, k};
        ActivationGraph graph = OneOperator(6 * 8 * c, out.height * out.width * k);
        graph.operators = {WindowOperator("conv", 0, in, 1, out, window, stride, {})};
        const int64_t distance = TrailDistance(graph, graph.operators[0], 0, 1);
        const int64_t replayed = ReplayedDistance(graph);
        EXPECT_GE(distance, replayed);
        // Edges are counted as if there were pixels behind them.
        EXPECT_LE(distance, replayed + (window / 2) * (8 + 1) * c);
        if (window == 1) {
          EXPECT_EQ(distance, replayed);
        }
      }
    }
  }
}

TEST(TrailDistanceTest, OfAnExpertDependsOnTheLoopOrder) {
  ActivationGraph rows = OneOperator(64 * 8, 64 * 8);
  rows.operators = {FusedFfn("ffn", FfnLoopOrder::kRowsOutermost, 64, {0, 8}, {1, 8}, 16, {})};
  EXPECT_EQ(TrailDistance(rows, rows.operators[0], 0, 1), 0) << "each tile over itself";
  ActivationGraph stripes = OneOperator(64 * 8, 64 * 8);
  stripes.operators = {FusedFfn("ffn", FfnLoopOrder::kStripesOutermost, 64, {0, 8}, {1, 8}, 6, {})};
  EXPECT_EQ(TrailDistance(stripes, stripes.operators[0], 0, 1), 64 * 8) << "no overlap";
  EXPECT_EQ(ReplayedDistance(stripes), 64 * 8);
}

TEST(MayRunInPlaceTest, RowsOfEqualWidthOnly) {
  ActivationGraph graph = OneOperator(80, 80);
  const auto rows = [](int64_t in, int64_t out) {
    return RowWise("rows", 10, {{0, in}}, {{1, out}}, /*parallel=*/true);
  };
  EXPECT_TRUE(MayRunInPlace(rows(8, 8), 0, 1));
  EXPECT_FALSE(MayRunInPlace(rows(8, 4), 0, 1));
  EXPECT_FALSE(MayRunInPlace(rows(4, 8), 0, 1));
  EXPECT_FALSE(MayRunInPlace(ColumnParallelLinear("linear", 10, {0, 8}, {1, 8}, 2), 0, 1));
  // Rows dealt to workers head by head, as attention does.
  ActivationOperator heads = {.name = "heads", .domain = {10, 4}, .parallel_dims = 2};
  heads.reads = {{0, 2, {8, 2}}};
  heads.writes = {{1, 2, {8, 2}}};
  EXPECT_TRUE(MayRunInPlace(heads, 0, 1));
  heads.reads[0].bytes = 3;
  EXPECT_FALSE(MayRunInPlace(heads, 0, 1)) << "reads its neighbour's";
}

TEST(MayRunInPlaceTest, AgreesWithTheReplay) {
  std::mt19937 random(9);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  int in_place = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    ActivationOperator op = {.name = "op", .domain = {1 + below(3), 1 + below(3), 1 + below(2)}};
    op.parallel_dims = 1 + static_cast<int32_t>(below(2));
    const auto access = [&](int32_t tensor) {
      return TensorAccess{tensor, 1 + below(2), {1 + below(6), 1 + below(3), below(2)}, below(2)};
    };
    op.reads = {access(0)};
    op.writes = {access(1)};
    if (below(2) == 0) op.writes[0].strides = op.reads[0].strides;
    ActivationGraph graph = OneOperator(40, 40);
    graph.tensors[1].output = false;  // not all of it is written
    graph.operators = {op};
    if (!MayRunInPlace(op, 0, 1)) continue;
    ++in_place;
    EXPECT_TRUE(ReplayAccesses(graph, {{0, 0}, 40}).ok());
  }
  EXPECT_GT(in_place, 100);
}

TEST(LifetimesTest, SpanFirstToLastUse) {
  ActivationGraph graph;
  const int32_t x = graph.Add("x", 4);
  const int32_t y = graph.Add("y", 4);
  const int32_t scratch = graph.Add("scratch", 4);
  const int32_t unused = graph.Add("unused", 4);
  const int32_t all = graph.AddPersistent("all", 4);
  graph.operators = {RowWise("a", 1, {}, {{x, 4}}, false),
                     RowWise("b", 1, {{x, 4}}, {{y, 4}}, false),
                     RowWise("c", 1, {{y, 4}}, {}, false)};
  graph.operators[1].workspace = {scratch};
  const std::vector<Lifetime> lives = Lifetimes(graph);
  const auto is = [&](int32_t tensor, int32_t first, int32_t last) {
    return lives[tensor].first == first && lives[tensor].last == last;
  };
  EXPECT_TRUE(is(x, 0, 1));
  EXPECT_TRUE(is(y, 1, 2));
  EXPECT_TRUE(is(scratch, 1, 1));
  EXPECT_TRUE(is(all, 0, 2));
  EXPECT_GT(lives[unused].first, lives[unused].last);
}

TEST(ReplayTest, FindsWhatIsOverwritten) {
  ActivationGraph graph;
  const int32_t x = graph.Add("x", 8);
  graph.AddPersistent("kept", 8);
  const int32_t scratch = graph.Add("scratch", 8);
  const int32_t y = graph.Add("y", 8);
  graph.tensors[x].input = true;
  graph.tensors[y].output = true;
  graph.operators = {RowWise("copy", 4, {{x, 2}}, {{y, 2}}, false)};
  graph.operators[0].workspace = {scratch};
  EXPECT_TRUE(ReplayAccesses(graph, {{16, 0, 8, 24}, 32}).ok());
  EXPECT_TRUE(ReplayAccesses(graph, {{18, 0, 8, 16}, 32}).ok()) << "trailing";
  EXPECT_TRUE(ReplayAccesses(graph, {{16, 0, 8, 16}, 32}).ok()) << "in place";
  EXPECT_FALSE(ReplayAccesses(graph, {{16, 0, 8, 18}, 32}).ok()) << "running ahead";
  EXPECT_FALSE(ReplayAccesses(graph, {{16, 0, 8, 4}, 32}).ok()) << "over kept and scratch";
  EXPECT_FALSE(ReplayAccesses(graph, {{16, 0, 10, 24}, 32}).ok()) << "scratch over x";
  EXPECT_FALSE(ReplayAccesses(graph, {{16, 0, 8, 24}, 30}).ok()) << "outside the pool";
  graph.operators[0].parallel_dims = 1;
  EXPECT_FALSE(ReplayAccesses(graph, {{18, 0, 8, 16}, 32}).ok()) << "trailing, in any order";
  EXPECT_TRUE(ReplayAccesses(graph, {{16, 0, 8, 16}, 32}).ok()) << "in place, in any order";
}

}  // namespace
}  // namespace moesaic
