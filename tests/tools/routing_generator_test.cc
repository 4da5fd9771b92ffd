#include "tools/bench/routing_generator.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/crc32.h"
#include "tests/core/routing_trace_files.h"

namespace moesaic::bench {
namespace {

constexpr int32_t kExperts = 16;

absl::StatusOr<RoutingTrace> Generate(const RoutingGeneratorOptions& options,
                                      int32_t top_k = 2,
                                      std::string* bytes = nullptr) {
  const std::filesystem::path path = TracePath("generated");
  auto writer =
      RoutingTraceWriter::Create(path, {.num_layers = 3, .num_experts = kExperts, .top_k = top_k});
  if (!writer.ok()) return writer.status();
  if (const absl::Status status = GenerateRouting(options, **writer); !status.ok()) return status;
  if (const absl::Status status = (*writer)->Finish(); !status.ok()) return status;
  if (bytes != nullptr) *bytes = FileBytes(path);
  auto trace = ReadRoutingTrace(path);
  std::filesystem::remove(path);
  return trace;
}

// Uses of each expert of one layer, the largest first, as shares.
std::vector<double> Popularity(const RoutingTrace& trace, int32_t layer) {
  std::vector<double> uses(kExperts);
  double total = 0;
  for (const RoutingTrace::Record& record : trace.records) {
    if (record.layer != layer) continue;
    for (const uint16_t expert : trace.Experts(record)) {
      ++uses[expert];
      ++total;
    }
  }
  for (double& share : uses) share /= total;
  std::sort(uses.rbegin(), uses.rend());
  return uses;
}

TEST(RoutingGeneratorTest, TheSameOptionsGiveTheSameFileOnEveryMachine) {
  std::string first;
  std::string second;
  std::string other;
  const RoutingGeneratorOptions options = {.steps = 50, .seed = 7};
  ASSERT_TRUE(Generate(options, 2, &first).ok());
  ASSERT_TRUE(Generate(options, 2, &second).ok());
  EXPECT_EQ(first, second);
  ASSERT_TRUE(Generate({.steps = 50, .seed = 8}, 2, &other).ok());
  EXPECT_NE(first, other);
}

TEST(RoutingGeneratorTest, HasStreamsStepsAndRequestsAsAsked) {
  const auto trace = Generate({.streams = 3, .steps = 20, .request_tokens = 5});
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->records.size(), 20u * 3);
  EXPECT_GE(trace->requests.size(), 3u * 4);
  for (const RoutingTrace::Record& record : trace->records) {
    EXPECT_EQ(record.num_rows, 3);
    for (const RoutingRun& run : trace->Runs(record)) EXPECT_LT(run.first_position, 5);
  }
  // Every position of a request, from 0 on: what the server asks of a trace to replay.
  std::map<std::pair<uint64_t, int32_t>, int32_t> next;
  for (const RoutingTrace::Record& record : trace->records) {
    for (const RoutingRun& run : trace->Runs(record)) {
      EXPECT_EQ(run.first_position, (next[{run.request, record.layer}]++));
    }
  }
  EXPECT_THAT(trace->requests[0].tag, testing::StartsWith("topic-"));
}

TEST(RoutingGeneratorTest, PopularityFollowsZipf) {
  // One expert a row, so that no draw is without replacement.
  const auto trace =
      Generate({.steps = 10'000, .zipf = 0.8, .topics = 1, .correlation = 0, .repeat = 0}, 1);
  ASSERT_TRUE(trace.ok()) << trace.status();
  double total = 0;
  for (int32_t rank = 0; rank < kExperts; ++rank) total += std::pow(rank + 1, -0.8);
  for (int32_t layer = 0; layer < 3; ++layer) {
    const std::vector<double> popularity = Popularity(*trace, layer);
    for (int32_t rank = 0; rank < kExperts; ++rank) {
      EXPECT_NEAR(popularity[rank], std::pow(rank + 1, -0.8) / total, 0.01) << rank;
    }
  }
}

TEST(RoutingGeneratorTest, ZeroExponentIsUniform) {
  const auto trace = Generate({.steps = 10'000, .zipf = 0, .correlation = 0, .repeat = 0});
  ASSERT_TRUE(trace.ok()) << trace.status();
  for (const double share : Popularity(*trace, 1)) EXPECT_NEAR(share, 1.0 / kExperts, 0.005);
}

TEST(RoutingGeneratorTest, FullCorrelationFollowsTheLayerBeforeAndKeepsPopularity) {
  const auto trace = Generate({.steps = 2000, .topics = 1, .correlation = 1, .repeat = 0}, 1);
  ASSERT_TRUE(trace.ok()) << trace.status();
  std::map<uint16_t, std::set<uint16_t>> successors;
  for (size_t i = 1; i < trace->records.size(); ++i) {
    if (trace->records[i].layer != 1) continue;
    const auto before = trace->Experts(trace->records[i - 1]);
    const auto after = trace->Experts(trace->records[i]);
    for (size_t row = 0; row < before.size(); ++row) successors[before[row]].insert(after[row]);
  }
  for (const auto& [expert, next] : successors) EXPECT_EQ(next.size(), 1u) << expert;
  EXPECT_EQ(Popularity(*trace, 0), Popularity(*trace, 1));
}

TEST(RoutingGeneratorTest, RepeatsChoicesOfTheTokenBefore) {
  const auto overlap = [](double repeat) {
    const auto trace = Generate({.streams = 1,
                                 .steps = 2000,
                                 .request_tokens = 10'000,
                                 .zipf = 0,
                                 .drift = 0,
                                 .correlation = 0,
                                 .repeat = repeat});
    EXPECT_TRUE(trace.ok()) << trace.status();
    int64_t same = 0;
    for (size_t i = 3; i < trace->records.size(); ++i) {
      for (const uint16_t before : trace->Experts(trace->records[i - 3])) {
        for (const uint16_t now : trace->Experts(trace->records[i])) same += before == now;
      }
    }
    return static_cast<double>(same) / static_cast<double>(2 * (trace->records.size() - 3));
  };
  EXPECT_NEAR(overlap(0), 2.0 / kExperts, 0.02);
  EXPECT_NEAR(overlap(0.5), 0.5 + 0.5 * 2 / kExperts, 0.05);
  EXPECT_DOUBLE_EQ(overlap(1), 1);
}

TEST(RoutingGeneratorTest, ChoosesAllWhenTopKIsAll) {
  const auto trace = Generate({.steps = 3}, kExperts);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->experts.size(), 3u * 3 * 4 * kExperts);
}

TEST(RoutingGeneratorTest, NamesOptionsThatCannotBe) {
  EXPECT_EQ(Generate({.streams = 0}).status().message(), "streams: got 0, expected 1 to 4096");
  for (const RoutingGeneratorOptions& bad :
       {RoutingGeneratorOptions{.steps = -1}, RoutingGeneratorOptions{.request_tokens = 0},
        RoutingGeneratorOptions{.zipf = -1}, RoutingGeneratorOptions{.zipf = NAN},
        RoutingGeneratorOptions{.topics = 0}, RoutingGeneratorOptions{.drift = 2},
        RoutingGeneratorOptions{.correlation = -0.1}, RoutingGeneratorOptions{.repeat = 1.5}}) {
    EXPECT_EQ(Generate(bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace moesaic::bench
