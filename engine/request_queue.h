#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/request.h"
#include "core/text_sink.h"

namespace moesaic {

struct Submission {
  Request request;
  std::shared_ptr<TextSink> sink;  // shared with the edge, which reads the stream
};

// What other threads want of the engine thread since it last looked.
struct QueuedWork {
  std::vector<Submission> submissions;
  std::vector<RequestId> cancellations;
  bool held = false;
  bool stopping = false;
};

// Where the engine thread meets all others. Bounded: at most `capacity` requests are accepted at a
// time, and each can be cancelled once.
//
// Owner: engine. Thread: any for Push, Cancel, SetHeld and Drain; the engine's for the rest.
class RequestQueue {
 public:
  explicit RequestQueue(int32_t capacity);

  // ResourceExhausted when `capacity` requests are accepted and not ended, Unavailable after Drain,
  // AlreadyExists when a request of this id is accepted and not ended.
  absl::Status Push(Submission submission);
  void Cancel(RequestId id);
  void SetHeld(bool held);
  // Refuses new requests and waits until none is left or `deadline` passed; then cancels the rest
  // and waits for their end.
  void Drain(absl::Time deadline);
  // Makes Take return with `stopping`.
  void Stop();

  // Accepted and not ended.
  int32_t num_accepted() const;

  // Everything new. When nothing is, waits for it if `idle`, `wake_at` at the longest; holding
  // counts as idle. `work` is overwritten.
  void Take(bool idle, absl::Time wake_at, QueuedWork& work);
  // A request has ended: its place is free. Called before its sink hears of it, so that a client
  // may submit the next one from there.
  void FreePlace();
  // The request's sink has heard the end.
  void Forget(RequestId id);

 private:
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int32_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;  // for the engine thread
  std::condition_variable emptied_;  // for Drain
  // Accepted and not forgotten; true once cancelled.
  absl::flat_hash_map<RequestId, bool> accepted_ ABSL_GUARDED_BY(mutex_);
  int32_t places_taken_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Submission> submissions_ ABSL_GUARDED_BY(mutex_);
  std::vector<RequestId> cancellations_ ABSL_GUARDED_BY(mutex_);
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool held_seen_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace moesaic
