#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memory/copy_queue.h"
#include "memory/device.h"
#include "memory/stripe_keys.h"
#include "memory/stripe_source.h"

namespace moesaic {

// Says where stripes go and hears of their arrival. Called by the copy thread, the mutex held.
class CopyClient {
 public:
  virtual ~CopyClient() = default;
  // The turn of `stripe` has come: where its bytes go. Null while there is no room: it stays first,
  // and nothing else starts until Resume() or the end of a copy.
  virtual std::byte* Place(int32_t stripe, CopyClass copy_class) = 0;
  // A placed stripe is readable by the device, or its copy failed.
  virtual void Finished(int32_t stripe, const absl::Status& status) = 0;
};

// The thread that brings stripes from their source to slots, demand first. A stripe in host memory
// is copied by the device's copy stream; one on disk is read straight into its slot, or, if the CPU
// cannot reach that, by way of a pinned buffer. Retrying is the source's affair.
//
// Owner: ExpertMemory. Thread: any that holds the mutex, which is the client's, for the methods
// marked so. Lifetime: Stop() and the destructor. No allocation after Create, but for errors.
class CopyEngine {
 public:
  struct Options {
    // Copies that have started and not ended; one stripe is always allowed.
    int64_t max_bytes_in_flight = int64_t{32} << 20;
    // Of these, prefetches: the rest is kept for demands, which then wait for fewer others.
    int64_t max_prefetch_bytes_in_flight = int64_t{16} << 20;
  };

  struct Counters {
    struct PerClass {
      int64_t stripes = 0;  // copied, by their class in the end
      int64_t bytes = 0;
      int32_t queued = 0;
    };
    std::array<PerClass, kNumCopyClasses> classes;
    int64_t failed_stripes = 0;
    int64_t cancelled_stripes = 0;  // while they were queued
    int64_t bytes_in_flight = 0;
    int64_t max_bytes_in_flight = 0;  // so far
    double busy_seconds = 0;  // with a copy in flight: bytes / busy_seconds is the bandwidth
  };

  // Everything borrowed outlives the engine. The thread starts here and may call the client at once
  // something is queued.
  static absl::StatusOr<std::unique_ptr<CopyEngine>> Create(Device& device,
                                                            StripeSource& source,
                                                            CopyClient& client,
                                                            std::mutex& mutex,
                                                            const Options& options);
  ~CopyEngine() { Stop(); }
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;

  // Forgets what is queued, waits for what has started and ends the thread. The mutex is not held.
  void Stop();

  // All of the following: the mutex held.

  // `stripe` is neither queued nor in flight; `before` as in CopyQueue::Insert. Flush() follows.
  void Enqueue(int32_t stripe, CopyClass copy_class, int32_t before = -1);
  // Moves a stripe that is queued, or counts one in flight, in a more urgent class; of the same or
  // a less urgent one it changes nothing. Flush() follows.
  void Promote(int32_t stripe, CopyClass copy_class);
  // Forgets a queued stripe, or all of a class. Flush() follows: what was behind may have room.
  void Cancel(int32_t stripe);
  void CancelClass(CopyClass copy_class);
  // The client may have room now. Flush() follows.
  void Resume();
  // Tells the thread of new work.
  void Flush();

  const CopyQueue& queue() const { return queue_; }
  int32_t in_flight() const { return in_flight_; }
  // The first of the queue waits for room.
  bool blocked() const { return blocked_; }
  Counters counters() const;

 private:
  using Clock = std::chrono::steady_clock;

  struct Copy {
    int32_t stripe = -1;  // -1: this entry is free
    CopyClass copy_class = CopyClass::kDemand;
    bool reading = false;  // the source is at work
    bool copying = false;  // the copy stream is at work, `event` is its end
    int32_t staging = -1;  // a buffer between the two
    std::byte* slot = nullptr;
    CopyEvent event = 0;
  };

  CopyEngine(Device& device,
             StripeSource& source,
             CopyClient& client,
             std::mutex& mutex,
             const Options& options);

  void Run();
  // Starts the next copy if it may. The lock is dropped while the copy starts.
  bool StartNext(std::unique_lock<std::mutex>& lock);
  int32_t NextStripe() const;
  bool MayStart(int32_t stripe, CopyClass copy_class) const;
  absl::Status Start(Copy& copy, uint64_t token);
  absl::Status CopyToSlot(Copy& copy, const std::byte* from);
  void PollCopies();
  void Finish(Copy& copy, const absl::Status& status);

  StripeSource& source_;
  CopyClient& client_;
  std::mutex& mutex_;
  const StripeKeys keys_;
  const int64_t slot_bytes_;
  const int32_t max_prefetches_;
  const bool direct_reads_;
  std::unique_ptr<CopyStream> stream_;
  std::unique_ptr<DeviceMemory> staging_;

  // Guarded by the mutex.
  CopyQueue queue_;
  std::vector<Copy> copies_;  // as many as may be in flight; the index is the read's token
  int32_t in_flight_ = 0;
  int32_t prefetches_in_flight_ = 0;
  bool blocked_ = false;
  bool waiting_ = false;  // the thread is in WaitCompletions
  bool unflushed_ = false;
  bool stopping_ = false;
  Counters counters_;
  Clock::time_point busy_since_;

  // The copy thread's own.
  int32_t reads_in_flight_ = 0;
  int32_t copying_ = 0;
  std::vector<int32_t> free_staging_;
  std::vector<StripeSource::Completion> completions_;

  std::thread thread_;
};

}  // namespace moesaic
