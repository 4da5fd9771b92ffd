#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/ids.h"
#include "memory/expert_store.h"

namespace moesaic {

// Where the bytes of a stripe come from on their way to a slot: host memory or the disk.
//
// Owner: the engine, beside the cache that it feeds. Thread: as each method says; the copy thread
// is one thread. Lifetime: longer than any slot that a read was started into, and than any pointer
// handed out.
class StripeSource {
 public:
  // A finished read: the stripe is whole (its checksum was verified) when `status` is OK.
  struct Completion {
    uint64_t token = 0;
    absl::Status status = {};
  };

  virtual ~StripeSource() = default;

  virtual const ExpertStore::Shape& shape() const = 0;

  // The stripe's bytes where they lie in host memory, valid while the source lives, or null when it
  // must be read. Never changes after start. Any thread.
  virtual const std::byte* HostStripe(StripeId id) const = 0;

  // Starts reading the stripe's shape().slot_bytes into `slot` (aligned to 4 KiB, host-accessible,
  // untouched until the completion). At most max_reads_in_flight() at a time, one per slot; an
  // error means that nothing was started. Any StripeId, also one that lies in host memory. Copy
  // thread.
  virtual absl::Status StartRead(StripeId id, std::byte* slot, uint64_t token) = 0;

  // Appends every read that has finished to `out`. Blocks until there is one, until `deadline`, or
  // until Wake() was called since the last return; may return early with nothing. A read that
  // failed is DataLoss (damaged) or Unavailable (the disk) and names the file, layer, expert and
  // stripe. Copy thread.
  virtual void WaitCompletions(absl::Time deadline, std::vector<Completion>& out) = 0;

  // Makes the present or the next WaitCompletions return. Any thread.
  virtual void Wake() = 0;

  virtual int max_reads_in_flight() const = 0;
};

// Every stripe in RAM: what a server uses whose experts all fit. Borrows the store.
class RamStripeSource : public StripeSource {
 public:
  explicit RamStripeSource(const ExpertStore& store) : store_(store) {}

  const ExpertStore::Shape& shape() const override { return store_.shape(); }
  const std::byte* HostStripe(StripeId id) const override {
    return static_cast<const std::byte*>(store_.Stripe(id));
  }
  // Copies at once; the completion follows.
  absl::Status StartRead(StripeId id, std::byte* slot, uint64_t token) override;
  void WaitCompletions(absl::Time deadline, std::vector<Completion>& out) override;
  void Wake() override;
  int max_reads_in_flight() const override { return 64; }

 private:
  const ExpertStore& store_;
  std::vector<Completion> finished_;  // the copy thread's own
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false;  // under mutex_
};

}  // namespace moesaic
