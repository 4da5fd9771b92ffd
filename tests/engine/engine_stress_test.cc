// Many threads against one engine: what each client sees must be right whatever the interleaving.

#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/engine/engine_fixture.h"

namespace moesaic {
namespace {

Request MakeRequest(RequestId id, std::vector<int32_t> prompt, SamplingParams params) {
  Request request;
  request.id = id;
  request.prompt = std::move(prompt);
  request.params = std::move(params);
  request.arrival = absl::Now();
  return request;
}

TEST(EngineStressTest, SubmitAndCancelStormsLeaveNothingBehind) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 150;
  EngineFixture::Options options;
  options.engine.max_sequences = 8;
  options.engine.max_queue = 16;
  options.kv_blocks = 24;
  EngineFixture fixture(options);
  std::atomic<RequestId> next_id = 0;
  std::atomic<int> finished = 0;
  std::atomic<int> refused = 0;
  const auto client = [&](uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<std::pair<RequestId, std::shared_ptr<RecordingSink>>> started;
    for (int i = 0; i < kRequests; ++i) {
      SamplingParams params = SeededParams(random(), 1 + static_cast<int32_t>(random() % 40));
      params.n = 1 + static_cast<int32_t>(random() % 3);
      params.top_p = 0.9f;
      Request request = MakeRequest(
          ++next_id, RandomPrompt(random() % 5, 1 + static_cast<int32_t>(random() % 60)), params);
      if (random() % 8 == 0) request.deadline = absl::Now() + absl::Milliseconds(random() % 3);
      const RequestId id = request.id;
      auto sink = std::make_shared<RecordingSink>(params.n);
      if (!fixture.engine().Submit(std::move(request), sink).ok()) {
        ++refused;
      } else {
        started.emplace_back(id, std::move(sink));
      }
      if (random() % 3 == 0 && !started.empty()) {
        fixture.engine().Cancel(started[random() % started.size()].first);
      }
      if (random() % 4 == 0) fixture.engine().load();
      if (random() % 16 == 0) fixture.RenderMetrics();
    }
    for (auto& [id, sink] : started) {
      const absl::StatusCode code = sink->Wait().code();
      EXPECT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kCancelled ||
                  code == absl::StatusCode::kDeadlineExceeded);
      ++finished;
    }
  };
  std::vector<std::thread> clients;
  for (uint32_t i = 0; i < kThreads; ++i) clients.emplace_back(client, i);
  for (std::thread& thread : clients) thread.join();
  EXPECT_EQ(finished + refused, kThreads * kRequests);
  EXPECT_EQ(fixture.engine().load().running, 0);
  EXPECT_EQ(fixture.engine().load().kv_blocks_used, 0);
  EXPECT_EQ(fixture.Metric("moesaic_kv_cache_usage_perc"), 0);
  fixture.Run(RandomPrompt(1, 20), GreedyParams(5));
}

TEST(EngineStressTest, OverloadFromManyThreadsAcceptsExactlyTheCapacity) {
  EngineFixture fixture({});
  fixture.engine().SetHeld(true);
  std::atomic<RequestId> next_id = 0;
  std::atomic<int> accepted = 0;
  std::atomic<int> refused = 0;
  std::vector<std::thread> clients;
  std::vector<std::vector<std::shared_ptr<RecordingSink>>> sinks(4);
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&, i] {
      for (int k = 0; k < 250; ++k) {
        auto sink = std::make_shared<RecordingSink>();
        const absl::Status status = fixture.engine().Submit(
            MakeRequest(++next_id, RandomPrompt(k, 5), GreedyParams(3)), sink);
        if (status.ok()) {
          ++accepted;
          sinks[i].push_back(std::move(sink));
        } else {
          EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
          ++refused;
        }
      }
    });
  }
  for (std::thread& thread : clients) thread.join();
  EXPECT_EQ(accepted, 272);
  EXPECT_EQ(refused, 728);
  fixture.engine().SetHeld(false);
  for (const auto& own : sinks) {
    for (const auto& sink : own) EXPECT_TRUE(sink->Wait().ok());
  }
}

TEST(EngineStressTest, DrainWhileClientsSubmit) {
  EngineFixture fixture({});
  std::atomic<RequestId> next_id = 0;
  const auto first = fixture.Start(MakeRequest(++next_id, {1}, GreedyParams(50)));
  std::vector<std::thread> clients;
  for (uint32_t i = 0; i < 3; ++i) {
    clients.emplace_back([&, i] {
      std::vector<std::shared_ptr<RecordingSink>> started;
      while (true) {
        auto sink = std::make_shared<RecordingSink>();
        const absl::Status status = fixture.engine().Submit(
            MakeRequest(++next_id, RandomPrompt(i, 9), GreedyParams(20)), sink);
        if (status.code() == absl::StatusCode::kUnavailable) break;
        if (status.ok()) {
          started.push_back(std::move(sink));
        } else {
          std::this_thread::yield();
        }
      }
      for (const auto& sink : started) {
        const absl::StatusCode code = sink->Wait().code();
        EXPECT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kCancelled);
      }
    });
  }
  first->WaitForTokens(20);
  fixture.engine().Drain(absl::Now() + absl::Milliseconds(5));
  EXPECT_EQ(fixture.engine().load().waiting, 0);
  for (std::thread& thread : clients) thread.join();
}

}  // namespace
}  // namespace moesaic
