#include "engine/engine.h"

#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "tests/engine/engine_fixture.h"

namespace moesaic {
namespace {

TEST(EngineTest, GreedyTokensAreThoseOfTheModelAlone) {
  EngineFixture fixture({});
  const std::vector<int32_t> prompt = RandomPrompt(1, 37);
  const auto sink = fixture.Run(prompt, GreedyParams(40));
  EXPECT_EQ(sink->tokens(), FakeModel::Greedy({}, prompt, 40));
  EXPECT_EQ(sink->streams()[0].reason, FinishReason::kLength);
  EXPECT_EQ(sink->streams()[0].usage.prompt_tokens, 37);
  EXPECT_EQ(sink->streams()[0].usage.completion_tokens, 40);
  EXPECT_EQ(sink->step_ends(), 40);
}

TEST(EngineTest, MixedRequestsJoiningAndLeavingGetTheirOwnTokens) {
  EngineFixture fixture({});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 40; ++i) {
    sinks.push_back(fixture.Start(RandomPrompt(i, 1 + 7 * i), GreedyParams(1 + i % 23)));
  }
  for (int i = 0; i < 40; ++i) {
    EXPECT_TRUE(sinks[i]->Wait().ok());
    EXPECT_EQ(sinks[i]->tokens(), FakeModel::Greedy({}, RandomPrompt(i, 1 + 7 * i), 1 + i % 23));
  }
}

TEST(EngineTest, AcceptsExactlyTheRequestsItHasPlacesFor) {
  EngineFixture fixture({});
  fixture.engine().SetHeld(true);
  std::vector<std::shared_ptr<RecordingSink>> accepted;
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    auto sink = std::make_shared<RecordingSink>();
    const absl::Status status =
        fixture.engine().Submit(fixture.MakeRequest(RandomPrompt(i, 8), GreedyParams(4)), sink);
    if (status.ok()) {
      accepted.push_back(std::move(sink));
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
      ++refused;
    }
  }
  EXPECT_EQ(accepted.size(), 272u);
  EXPECT_EQ(refused, 728);
  fixture.engine().SetHeld(false);
  for (const auto& sink : accepted) EXPECT_TRUE(sink->Wait().ok());
}

}  // namespace
}  // namespace moesaic
