#include "engine/request_queue.h"

#include <thread>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

Submission MakeSubmission(RequestId id) {
  Submission submission;
  submission.request.id = id;
  return submission;
}

TEST(RequestQueueTest, HandsOverWhatCameSinceTheLastLook) {
  RequestQueue queue(4);
  EXPECT_TRUE(queue.Push(MakeSubmission(1)).ok());
  EXPECT_TRUE(queue.Push(MakeSubmission(2)).ok());
  queue.Cancel(2);
  queue.Cancel(2);  // counts once
  queue.Cancel(3);  // nobody
  QueuedWork work;
  queue.Take(/*idle=*/true, absl::InfiniteFuture(), work);
  ASSERT_EQ(work.submissions.size(), 2u);
  EXPECT_EQ(work.submissions[0].request.id, 1u);
  EXPECT_EQ(work.cancellations, std::vector<RequestId>{2});
  EXPECT_FALSE(work.held);
  EXPECT_FALSE(work.stopping);
  queue.Take(/*idle=*/false, absl::InfiniteFuture(), work);
  EXPECT_TRUE(work.submissions.empty());
  EXPECT_TRUE(work.cancellations.empty());
}

TEST(RequestQueueTest, AcceptsUpToItsCapacityUntilAPlaceIsFreed) {
  RequestQueue queue(2);
  EXPECT_TRUE(queue.Push(MakeSubmission(1)).ok());
  EXPECT_TRUE(queue.Push(MakeSubmission(2)).ok());
  EXPECT_EQ(queue.Push(MakeSubmission(3)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(queue.num_accepted(), 2);
  queue.FreePlace();
  EXPECT_EQ(queue.Push(MakeSubmission(2)).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(queue.Push(MakeSubmission(3)).ok());
  queue.Forget(1);
  EXPECT_EQ(queue.num_accepted(), 2);
}

TEST(RequestQueueTest, AnIdleTakeWakesForNewsAndForTheTime) {
  RequestQueue queue(2);
  QueuedWork work;
  std::thread client([&] { EXPECT_TRUE(queue.Push(MakeSubmission(1)).ok()); });
  queue.Take(/*idle=*/true, absl::InfiniteFuture(), work);
  EXPECT_EQ(work.submissions.size(), 1u);
  client.join();

  const absl::Time wake_at = absl::Now() + absl::Milliseconds(5);
  queue.Take(/*idle=*/true, wake_at, work);
  EXPECT_TRUE(work.submissions.empty());
  EXPECT_GE(absl::Now(), wake_at);
}

TEST(RequestQueueTest, WhileHeldABusyTakeWaitsToo) {
  RequestQueue queue(2);
  QueuedWork work;
  queue.SetHeld(true);
  queue.Take(/*idle=*/false, absl::InfiniteFuture(), work);
  EXPECT_TRUE(work.held);
  std::thread client([&] { queue.SetHeld(false); });
  queue.Take(/*idle=*/false, absl::InfiniteFuture(), work);
  EXPECT_FALSE(work.held);
  client.join();
}

TEST(RequestQueueTest, DrainReturnsWhenNothingIsLeft) {
  RequestQueue queue(2);
  EXPECT_TRUE(queue.Push(MakeSubmission(1)).ok());
  std::thread engine([&] {
    QueuedWork work;
    while (work.cancellations.empty()) queue.Take(/*idle=*/true, absl::InfiniteFuture(), work);
    EXPECT_EQ(work.cancellations, std::vector<RequestId>{1});
    queue.FreePlace();
    queue.Forget(1);
  });
  queue.Drain(absl::Now());  // the deadline passes at once: what is left is cancelled
  engine.join();
  EXPECT_EQ(queue.Push(MakeSubmission(2)).code(), absl::StatusCode::kUnavailable);
  queue.Drain(absl::InfiniteFuture());
}

TEST(RequestQueueTest, StopWakesTheEngine) {
  RequestQueue queue(2);
  std::thread client([&] { queue.Stop(); });
  QueuedWork work;
  queue.Take(/*idle=*/true, absl::InfiniteFuture(), work);
  EXPECT_TRUE(work.stopping);
  client.join();
  EXPECT_EQ(queue.Push(MakeSubmission(1)).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace moesaic
