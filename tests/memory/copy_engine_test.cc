#include "memory/copy_engine.h"

#include <condition_variable>
#include <map>
#include <random>
#include <set>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/aligned_buffer.h"
#include "memory/cpu_device.h"
#include "tests/memory/test_stripe_source.h"

namespace moesaic {
namespace {

constexpr ExpertStore::Shape kShape = {
    .num_layers = 2, .num_experts = 8, .stripes_per_expert = 2, .slot_bytes = 8192};
constexpr StripeKeys kKeys = {2, 8, 2};

// Gives every stripe a slot of its own while there is room.
class TestClient final : public CopyClient {
 public:
  explicit TestClient(const TestStripeSource& source) : source_(source) {}

  std::byte* Place(int32_t stripe, CopyClass) override {
    if (room == 0) {
      ++refused;
      changed.notify_all();
      return nullptr;
    }
    --room;
    placed.push_back(stripe);
    return Slot(stripe);
  }
  void Finished(int32_t stripe, const absl::Status& status) override {
    EXPECT_TRUE(finished.emplace(stripe, status).second);
    if (status.ok()) {
      EXPECT_TRUE(source_.Matches(Slot(stripe), kKeys.Id(stripe)));
    }
    changed.notify_all();
  }
  void WaitFinished(std::unique_lock<std::mutex>& lock, size_t count) {
    changed.wait(lock, [&] { return finished.size() >= count; });
  }

  std::mutex mutex;
  std::condition_variable changed;
  int room = 1000;
  int refused = 0;
  std::vector<int32_t> placed;
  std::map<int32_t, absl::Status> finished;

 private:
  std::byte* Slot(int32_t stripe) const { return slots_.data() + stripe * kShape.slot_bytes; }

  const TestStripeSource& source_;
  AlignedBuffer slots_ = *AlignedBuffer::Allocate(32 * 8192, "slots");
};

class CopyEngineTest : public testing::Test {
 protected:
  void Start(int32_t stripes_in_flight = 4, int32_t prefetches_in_flight = 2) {
    engine_ = *CopyEngine::Create(
        device_, source_, client_, client_.mutex,
        {.max_bytes_in_flight = stripes_in_flight * kShape.slot_bytes,
         .max_prefetch_bytes_in_flight = prefetches_in_flight * kShape.slot_bytes});
  }
  std::vector<int32_t> Started(size_t count) {
    std::vector<int32_t> stripes;
    for (const StripeId id : source_.WaitStarted(count)) stripes.push_back(kKeys.Stripe(id));
    return stripes;
  }

  CpuDevice device_{nullptr};
  TestStripeSource source_{kShape};
  TestClient client_{source_};
  std::unique_ptr<CopyEngine> engine_;
};

TEST_F(CopyEngineTest, DemandsComeBeforeTheNextLayerAndThatBeforeLater) {
  source_.Hold(true);
  Start(1, 1);
  std::unique_lock lock(client_.mutex);
  engine_->Enqueue(30, CopyClass::kLater);
  engine_->Enqueue(31, CopyClass::kLater);
  engine_->Enqueue(20, CopyClass::kNextLayer);
  engine_->Enqueue(21, CopyClass::kNextLayer);
  engine_->Enqueue(11, CopyClass::kDemand);
  engine_->Enqueue(10, CopyClass::kDemand);
  engine_->Enqueue(12, CopyClass::kDemand, 10);
  engine_->Flush();
  lock.unlock();
  source_.Release(7);
  EXPECT_THAT(Started(7), testing::ElementsAre(11, 12, 10, 20, 21, 30, 31));
  lock.lock();
  client_.WaitFinished(lock, 7);
  const CopyEngine::Counters counters = engine_->counters();
  EXPECT_EQ(counters.classes[0].stripes, 3);
  EXPECT_EQ(counters.classes[1].bytes, 2 * kShape.slot_bytes);
  EXPECT_EQ(counters.classes[2].queued, 0);
  EXPECT_EQ(counters.bytes_in_flight, 0);
  EXPECT_EQ(counters.max_bytes_in_flight, kShape.slot_bytes);
  EXPECT_GT(counters.busy_seconds, 0);
}

TEST_F(CopyEngineTest, QueuedCopiesAreCancelledAndPromoted) {
  source_.Hold(true);
  Start(1, 1);
  std::unique_lock lock(client_.mutex);
  for (const int32_t stripe : {1, 2, 3, 4}) engine_->Enqueue(stripe, CopyClass::kLater);
  engine_->Flush();
  lock.unlock();
  Started(1);
  lock.lock();
  engine_->Cancel(2);
  engine_->Promote(4, CopyClass::kDemand);
  engine_->Promote(4, CopyClass::kLater);  // less urgent: nothing changes
  engine_->Promote(1, CopyClass::kDemand);
  engine_->Flush();
  EXPECT_EQ(engine_->counters().cancelled_stripes, 1);
  EXPECT_EQ(engine_->counters().classes[2].queued, 1);
  lock.unlock();
  source_.Release(3);
  EXPECT_THAT(Started(3), testing::ElementsAre(1, 4, 3));
  lock.lock();
  client_.WaitFinished(lock, 3);
  EXPECT_EQ(engine_->counters().classes[0].stripes, 2) << "one was promoted in flight";
  EXPECT_EQ(client_.finished.count(2), 0u);
}

TEST_F(CopyEngineTest, BytesInFlightAreCappedAndPrefetchesLeaveRoom) {
  source_.Hold(true);
  source_.max_reads = 16;
  Start(5, 2);
  std::unique_lock lock(client_.mutex);
  for (int32_t stripe = 0; stripe < 10; ++stripe) engine_->Enqueue(stripe, CopyClass::kNextLayer);
  engine_->Flush();
  lock.unlock();
  Started(2);
  lock.lock();
  EXPECT_EQ(engine_->in_flight(), 2);
  for (int32_t stripe = 20; stripe < 26; ++stripe) engine_->Enqueue(stripe, CopyClass::kDemand);
  engine_->Flush();
  lock.unlock();
  Started(5);
  lock.lock();
  EXPECT_EQ(engine_->in_flight(), 5);
  lock.unlock();
  source_.Hold(false);
  lock.lock();
  client_.WaitFinished(lock, 16);
  EXPECT_EQ(engine_->counters().max_bytes_in_flight, 5 * kShape.slot_bytes);
}

TEST_F(CopyEngineTest, TheFirstOfTheQueueWaitsForRoom) {
  client_.room = 1;
  Start();
  std::unique_lock lock(client_.mutex);
  for (const int32_t stripe : {5, 6, 7}) engine_->Enqueue(stripe, CopyClass::kDemand);
  engine_->Flush();
  client_.WaitFinished(lock, 1);
  client_.changed.wait(lock, [&] { return engine_->blocked() && engine_->in_flight() == 0; });
  EXPECT_EQ(engine_->queue().Front(CopyClass::kDemand), 6);
  client_.room = 2;
  engine_->Resume();
  engine_->Flush();
  client_.WaitFinished(lock, 3);
  EXPECT_THAT(client_.placed, testing::ElementsAre(5, 6, 7));
}

TEST_F(CopyEngineTest, CancellingTheFirstLetsTheNextTry) {
  client_.room = 0;
  Start();
  std::unique_lock lock(client_.mutex);
  for (const int32_t stripe : {5, 6}) engine_->Enqueue(stripe, CopyClass::kLater);
  engine_->Flush();
  client_.changed.wait(lock, [&] { return client_.refused == 1; });
  client_.room = 1;
  engine_->Cancel(5);
  engine_->Flush();
  client_.WaitFinished(lock, 1);
  EXPECT_THAT(client_.placed, testing::ElementsAre(6));
}

TEST_F(CopyEngineTest, FailuresAreHandedOn) {
  source_.start_fault = [](StripeId id) {
    return id.stripe == 1 ? absl::UnavailableError("start") : absl::OkStatus();
  };
  source_.read_fault = [](StripeId id) {
    return id.expert.index == 3 ? absl::DataLossError("read") : absl::OkStatus();
  };
  Start();
  std::unique_lock lock(client_.mutex);
  for (int32_t stripe = 0; stripe < 16; ++stripe) engine_->Enqueue(stripe, CopyClass::kDemand);
  engine_->Flush();
  client_.WaitFinished(lock, 16);
  for (const auto& [stripe, status] : client_.finished) {
    const StripeId id = kKeys.Id(stripe);
    EXPECT_EQ(status.code(), id.stripe == 1         ? absl::StatusCode::kUnavailable
                             : id.expert.index == 3 ? absl::StatusCode::kDataLoss
                                                    : absl::StatusCode::kOk);
  }
  EXPECT_EQ(engine_->counters().failed_stripes, 9);
  EXPECT_EQ(engine_->counters().classes[0].stripes, 7);
}

TEST_F(CopyEngineTest, HostStripesAreCopiedAndADistantDeviceIsReachedThroughPinnedBuffers) {
  RemoteDevice remote;
  for (Device* device : {static_cast<Device*>(&device_), static_cast<Device*>(&remote)}) {
    client_.finished.clear();
    source_.in_host_memory = [](StripeId id) { return id.expert.index % 2 == 0; };
    const size_t reads_before = source_.num_started();
    engine_ = *CopyEngine::Create(*device, source_, client_, client_.mutex,
                                  {.max_bytes_in_flight = 6 * kShape.slot_bytes,
                                   .max_prefetch_bytes_in_flight = 3 * kShape.slot_bytes});
    std::unique_lock lock(client_.mutex);
    for (int32_t stripe = 0; stripe < 32; ++stripe) {
      engine_->Enqueue(stripe, static_cast<CopyClass>(stripe % 3));
    }
    engine_->Flush();
    client_.WaitFinished(lock, 32);
    for (const auto& [stripe, status] : client_.finished) EXPECT_TRUE(status.ok()) << status;
    lock.unlock();
    EXPECT_EQ(source_.num_started() - reads_before, 16u);
    engine_.reset();
  }
}

TEST_F(CopyEngineTest, TheEndOfADistantCopyMakesRoom) {
  RemoteDevice remote;
  source_.in_host_memory = [](StripeId) { return true; };
  engine_ = *CopyEngine::Create(remote, source_, client_, client_.mutex,
                                {.max_bytes_in_flight = kShape.slot_bytes,
                                 .max_prefetch_bytes_in_flight = kShape.slot_bytes});
  std::unique_lock lock(client_.mutex);
  for (int32_t stripe = 0; stripe < 32; ++stripe) engine_->Enqueue(stripe, CopyClass::kDemand);
  engine_->Flush();
  client_.WaitFinished(lock, 32);
  EXPECT_EQ(engine_->counters().max_bytes_in_flight, kShape.slot_bytes);
  lock.unlock();
  engine_.reset();
}

TEST_F(CopyEngineTest, StoppingForgetsTheQueueAndWaitsForReads) {
  source_.Hold(true);
  Start(2, 2);
  {
    const std::lock_guard lock(client_.mutex);
    for (int32_t stripe = 0; stripe < 8; ++stripe) engine_->Enqueue(stripe, CopyClass::kDemand);
    engine_->Flush();
  }
  Started(2);
  source_.Hold(false);
  engine_->Stop();
  EXPECT_GE(client_.finished.size(), 2u);
  EXPECT_EQ(client_.finished.size(), client_.placed.size());
  engine_.reset();
  Start();  // and without any work
}

TEST_F(CopyEngineTest, CancellingRacesWithCopying) {
  source_.max_reads = 3;
  source_.in_host_memory = [](StripeId id) { return id.expert.index == 5; };
  Start(4, 3);
  std::mt19937 random(5);
  size_t cancelled = 0;
  size_t expected = 0;
  for (int round = 0; round < 500; ++round) {
    std::unique_lock lock(client_.mutex);
    client_.finished.clear();
    client_.placed.clear();
    client_.room = 3;
    expected = 32;
    for (int32_t stripe = 0; stripe < 32; ++stripe) {
      engine_->Enqueue(stripe, static_cast<CopyClass>(random() % 3));
    }
    engine_->Flush();
    for (int i = 0; i < 20; ++i) {
      lock.unlock();
      lock.lock();
      const int32_t stripe = static_cast<int32_t>(random() % 32);
      client_.room += static_cast<int>(random() % 3);
      if (engine_->queue().Contains(stripe) && random() % 2 == 0) {
        engine_->Cancel(stripe);
        ++cancelled;
        --expected;
      } else if (client_.finished.count(stripe) == 0) {
        engine_->Promote(stripe, static_cast<CopyClass>(random() % 3));
      }
      engine_->Resume();
      engine_->Flush();
    }
    client_.room = 32;
    engine_->Resume();
    engine_->Flush();
    client_.WaitFinished(lock, expected);
    ASSERT_EQ(engine_->in_flight(), 0);
    ASSERT_TRUE(engine_->queue().empty());
    ASSERT_EQ(client_.placed.size(), expected);
  }
  EXPECT_GT(cancelled, 500u);
}

TEST_F(CopyEngineTest, ASourceWithoutStripesIsRefused) {
  TestStripeSource empty({.slot_bytes = 4096});
  EXPECT_EQ(CopyEngine::Create(device_, empty, client_, client_.mutex, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace moesaic
