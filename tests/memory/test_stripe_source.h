#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <random>
#include <vector>

#include "memory/device.h"
#include "memory/expert_store.h"
#include "memory/stripe_keys.h"
#include "memory/stripe_source.h"

namespace moesaic {

// Stripes whose every word tells which stripe it is, "on disk" unless a test says otherwise. Reads
// end when the copy thread waits for them, in random order and a few at a time, or, held back, when
// the test says so.
class TestStripeSource final : public StripeSource {
 public:
  explicit TestStripeSource(const ExpertStore::Shape& shape);

  // Set before anything is copied. Called by the copy thread.
  std::function<bool(StripeId)> in_host_memory = [](StripeId) { return false; };
  std::function<absl::Status(StripeId)> start_fault;  // StartRead returns it
  std::function<absl::Status(StripeId)> read_fault;   // of the completion
  int max_reads = 4;

  // While held, no read ends but by Release().
  void Hold(bool held);
  // Ends the first `count` reads that were started and have not ended.
  void Release(int count);
  // Blocks until so many reads have been started altogether; then all of them in order.
  std::vector<StripeId> WaitStarted(size_t count);
  size_t num_started();

  // Whether `data` is the whole of the stripe.
  bool Matches(const void* data, StripeId id) const;

  const ExpertStore::Shape& shape() const override { return store_.shape(); }
  const std::byte* HostStripe(StripeId id) const override;
  absl::Status StartRead(StripeId id, std::byte* slot, uint64_t token) override;
  void WaitCompletions(absl::Time deadline, std::vector<Completion>& out) override;
  void Wake() override;
  int max_reads_in_flight() const override { return max_reads; }

 private:
  struct Read {
    StripeId id;
    std::byte* slot;
    uint64_t token;
  };
  void End(const Read& read, std::vector<Completion>& out);

  ExpertStore store_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable started_changed_;
  std::vector<StripeId> started_;
  std::vector<Read> reads_;
  std::mt19937 random_{1};
  bool held_ = false;
  int released_ = 0;
  bool woken_ = false;
};

// A device whose memory the CPU is not to touch, and whose copies end a few polls later: what a GPU
// is to the copy engine.
class RemoteDevice final : public Device {
 public:
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(size_t bytes, const char* what) override;
  absl::StatusOr<std::unique_ptr<DeviceMemory>> AllocateHost(size_t bytes,
                                                             const char* what) override;
  bool host_accessible() const override { return false; }
  absl::StatusOr<std::unique_ptr<CopyStream>> CreateCopyStream() override;
  Stream stream() const override { return {}; }
};

}  // namespace moesaic
