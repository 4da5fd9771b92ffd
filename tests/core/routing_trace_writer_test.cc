#include "core/routing_trace_writer.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/routing_trace_files.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

struct Shape {
  int32_t num_layers, num_experts, top_k;
};

class AnyShapeTest : public testing::TestWithParam<Shape> {};

// Enough rows for many sections, written while the thread is at work.
TEST_P(AnyShapeTest, WhatIsReadIsWhatWasAppended) {
  const Shape shape = GetParam();
  const std::filesystem::path path = TracePath("shape");
  auto writer = RoutingTraceWriter::Create(path, {.model = "m",
                                                  .num_layers = shape.num_layers,
                                                  .num_experts = shape.num_experts,
                                                  .top_k = shape.top_k,
                                                  .has_weights = true});
  ASSERT_TRUE(writer.ok()) << writer.status();
  uint32_t random = 1;
  const auto draw = [&random](int32_t bound) {
    random = random * 1664525u + 1013904223u;
    return static_cast<int32_t>((random >> 8) % static_cast<uint32_t>(bound));
  };
  struct Expected {
    std::vector<int32_t> experts;
    std::vector<float> weights;
  };
  std::vector<Expected> expected;
  std::vector<int32_t> ids(shape.num_experts);
  for (int32_t i = 0; i < shape.num_experts; ++i) ids[i] = i;
  for (int64_t step = 0; step < 40; ++step) {
    const std::vector<RoutingRun> runs = {{1, static_cast<int32_t>(step), 1},
                                          {2, 0, 1 + draw(300)}};
    const int32_t rows = 1 + runs[1].num_rows;
    for (int32_t layer = 0; layer < shape.num_layers; ++layer) {
      Expected& now = expected.emplace_back();
      std::vector<int32_t> experts;
      std::vector<float> weights;
      for (int32_t row = 0; row < rows; ++row) {
        std::vector<std::pair<int32_t, float>> chosen;
        for (int32_t k = 0; k < shape.top_k; ++k) {
          std::swap(ids[k], ids[k + draw(shape.num_experts - k)]);
          chosen.emplace_back(ids[k], static_cast<float>(draw(1024)) / 1024);
        }
        for (const auto& [expert, weight] : chosen) {
          experts.push_back(expert);
          weights.push_back(weight);
        }
        std::sort(chosen.begin(), chosen.end());
        for (const auto& [expert, weight] : chosen) {
          now.experts.push_back(expert);
          now.weights.push_back(weight);
        }
      }
      const absl::Status status = (*writer)->Append(step, layer, runs, experts, weights);
      ASSERT_TRUE(status.ok()) << status;
    }
  }
  ASSERT_TRUE((*writer)->Finish().ok());
  const auto trace = ReadRoutingTrace(path);
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->records.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::ranges::equal(trace->Experts(trace->records[i]), expected[i].experts)) << i;
    ASSERT_TRUE(std::ranges::equal(trace->Weights(trace->records[i]), expected[i].weights)) << i;
  }
  std::filesystem::remove(path);
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         AnyShapeTest,
                         testing::Values(Shape{4, 128, 8},
                                         Shape{1, 1, 1},
                                         Shape{2, 8, 2},
                                         Shape{3, 8, 8},
                                         Shape{2, 128, 1},
                                         Shape{1, 60, 4},
                                         Shape{1, 65536, 1}));

TEST(RoutingTraceWriterTest, RefusesWhatIsNoRouting) {
  const std::filesystem::path path = TracePath("refuses");
  auto made = RoutingTraceWriter::Create(
      path, {.model = "m", .num_layers = 2, .num_experts = 4, .top_k = 2});
  ASSERT_TRUE(made.ok()) << made.status();
  RoutingTraceWriter& writer = **made;
  const std::vector<RoutingRun> one = {{5, 0, 1}};
  const std::vector<int32_t> experts = {0, 3};
  const auto code = [&](int64_t step, int32_t layer, const std::vector<RoutingRun>& runs,
                        const std::vector<int32_t>& chosen) {
    return writer.Append(step, layer, runs, chosen, {}).code();
  };
  EXPECT_EQ(code(3, 0, one, experts), absl::StatusCode::kOk);
  for (const auto bad :
       {code(3, 0, one, experts), code(2, 1, one, experts), code(4, 2, one, experts),
        code(4, -1, one, experts), code(4, 0, {}, {}), code(4, 0, one, {1}),
        code(4, 0, one, {1, 1}), code(4, 0, one, {1, 4}), code(4, 0, one, {-1, 2}),
        code(4, 0, {{5, 0, 0}}, {}), code(4, 0, {{5, -1, 1}}, experts)}) {
    EXPECT_EQ(bad, absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(writer.AddRequest(6, std::string(2000, 'x')).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(4, 0, one, experts), absl::StatusCode::kOk);
  ASSERT_TRUE(writer.Finish().ok());
  EXPECT_EQ(code(5, 0, one, experts), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(writer.Finish().code(), absl::StatusCode::kFailedPrecondition);
  // What was refused left no trace.
  const auto trace = ReadRoutingTrace(path);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->records.size(), 2u);
  std::filesystem::remove(path);
}

TEST(RoutingTraceWriterTest, RefusesImpossibleShapesAndPlaces) {
  EXPECT_EQ(
      RoutingTraceWriter::Create(TracePath("x"), {.num_layers = 1, .num_experts = 2, .top_k = 3})
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
  const auto nowhere = RoutingTraceWriter::Create("/nonexistent/a.trace",
                                                  {.num_layers = 1, .num_experts = 2, .top_k = 1});
  EXPECT_EQ(nowhere.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(nowhere.status().message()), HasSubstr("/nonexistent/a.trace"));
}

TEST(RoutingTraceWriterTest, ReportsAFullDisk) {
  auto writer =
      RoutingTraceWriter::Create("/dev/full", {.num_layers = 1, .num_experts = 2, .top_k = 1});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const absl::Status status = (*writer)->Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/dev/full: cannot write"));
}

TEST(RoutingTraceWriterTest, WithoutFinishTheTraceIsCutShort) {
  const std::filesystem::path path = TracePath("unfinished");
  {
    auto writer = RoutingTraceWriter::Create(path, {.num_layers = 1, .num_experts = 2, .top_k = 1});
    ASSERT_TRUE(writer.ok()) << writer.status();
    const std::vector<RoutingRun> one = {{5, 0, 1}};
    const std::vector<int32_t> expert = {1};
    ASSERT_TRUE((*writer)->Append(0, 0, one, expert, {}).ok());
  }
  EXPECT_THAT(std::string(ReadRoutingTrace(path).status().message()),
              HasSubstr("cut short in a section's header at byte 67 of 67, after 1 records"));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace moesaic
