#include "tools/bench/workload.h"

#include <cmath>
#include <fstream>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<int32_t>& Ids(const WorkItem& item) {
  return std::get<std::vector<int32_t>>(item.prompt);
}

RandomWorkload SmallWorkload() {
  RandomWorkload options;
  options.num_prompts = 50;
  options.input_tokens = 20;
  options.output_tokens = 10;
  options.range_ratio = 0.5;
  options.shared_prefix_tokens = 3;
  options.seed = 7;
  options.vocab_size = 40;
  options.excluded_ids = {0, 39, 39};
  return options;
}

TEST(RandomWorkloadTest, HonoursLengthsPrefixAndExcludedIds) {
  const std::vector<WorkItem> items = *MakeRandomWorkload(SmallWorkload());
  ASSERT_EQ(items.size(), 50u);
  std::set<std::vector<int32_t>> distinct;
  for (const WorkItem& item : items) {
    EXPECT_GE(Ids(item).size(), 3u + 10u);
    EXPECT_LE(Ids(item).size(), 3u + 30u);
    EXPECT_GE(item.max_tokens, 5);
    EXPECT_LE(item.max_tokens, 15);
    EXPECT_TRUE(std::equal(Ids(item).begin(), Ids(item).begin() + 3, Ids(items[0]).begin()));
    for (int32_t id : Ids(item)) EXPECT_TRUE(id > 0 && id < 39) << id;
    distinct.insert(Ids(item));
  }
  EXPECT_EQ(distinct.size(), items.size());
}

TEST(RandomWorkloadTest, TheSeedDecidesEverything) {
  RandomWorkload options = SmallWorkload();
  const std::vector<WorkItem> first = *MakeRandomWorkload(options);
  EXPECT_EQ(Ids(first[9]), Ids((*MakeRandomWorkload(options))[9]));
  options.seed = 8;
  EXPECT_NE(Ids(first[9]), Ids((*MakeRandomWorkload(options))[9]));
}

TEST(RandomWorkloadTest, RefusesWhatCannotBe) {
  RandomWorkload options = SmallWorkload();
  options.range_ratio = 1;
  EXPECT_FALSE(MakeRandomWorkload(options).ok());
  options = SmallWorkload();
  options.vocab_size = 1;
  EXPECT_FALSE(MakeRandomWorkload(options).ok());
  options = SmallWorkload();
  options.output_tokens = 0;
  EXPECT_FALSE(MakeRandomWorkload(options).ok());
}

class PromptsFileTest : public testing::Test {
 protected:
  std::filesystem::path Write(const std::string& text) {
    const std::filesystem::path path = testing::TempDir() + "/prompts.txt";
    std::ofstream(path) << text;
    return path;
  }
};

TEST_F(PromptsFileTest, ReadsTextAndJsonLines) {
  const auto items = ReadWorkload(
      Write(
          "a plain prompt\n\n{\"prompt\": \"{x}\", \"max_tokens\": 3}\n{\"prompt\": [1, 2, 3]}\n"),
      9);
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 3u);
  EXPECT_EQ(std::get<std::string>((*items)[0].prompt), "a plain prompt");
  EXPECT_EQ((*items)[0].max_tokens, 9);
  EXPECT_EQ(std::get<std::string>((*items)[1].prompt), "{x}");
  EXPECT_EQ((*items)[1].max_tokens, 3);
  EXPECT_THAT(Ids((*items)[2]), ElementsAre(1, 2, 3));
}

TEST_F(PromptsFileTest, BadLinesAreNamed) {
  for (const char* line :
       {"{\"prompt\": 5}", "{\"prompt\": []}", "{\"prompt\": [1, \"x\"]}",
        "{\"prompt\": [4294967297]}", "{}", "{", "{\"prompt\": \"a\", \"max_tokens\": 0}"}) {
    const auto items = ReadWorkload(Write(std::string("fine\n") + line + "\n"), 9);
    ASSERT_FALSE(items.ok()) << line;
    EXPECT_THAT(std::string(items.status().message()), HasSubstr("prompts.txt:2")) << line;
  }
  EXPECT_FALSE(ReadWorkload(Write(""), 9).ok());
  EXPECT_EQ(ReadWorkload("/nowhere/prompts", 9).status().code(), absl::StatusCode::kNotFound);
}

TEST(ArrivalTimesTest, EndAtCountOverRateAndAscend) {
  for (double burstiness : {0.3, 1.0, 5.0}) {
    const std::vector<double> times = ArrivalTimes(200, 25.0, burstiness, 3);
    EXPECT_NEAR(times.back(), 8.0, 1e-9);
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
    EXPECT_GE(times.front(), 0);
  }
}

TEST(ArrivalTimesTest, GapsHaveTheGammaDistributionsSpread) {
  // The coefficient of variation of a gamma distribution is 1 / sqrt(shape); 20,000 gaps estimate
  // it to about 2 %.
  for (double burstiness : {0.5, 1.0, 4.0}) {
    const std::vector<double> times = ArrivalTimes(20000, 1.0, burstiness, 11);
    double squares = 0;
    for (size_t i = 0; i < times.size(); ++i) {
      const double gap = times[i] - (i > 0 ? times[i - 1] : 0);
      squares += (gap - 1) * (gap - 1);
    }
    EXPECT_NEAR(std::sqrt(squares / 20000) * std::sqrt(burstiness), 1.0, 0.08);
  }
}

TEST(ArrivalTimesTest, AnInfiniteRateSendsAllAtOnce) {
  EXPECT_THAT(ArrivalTimes(3, std::numeric_limits<double>::infinity(), 1, 0), ElementsAre(0, 0, 0));
}

}  // namespace
}  // namespace moesaic::bench
