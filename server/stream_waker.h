#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace moesaic {

class ResponseStream;

// The thread on which streams learn that they have output. It keeps protobuf serialisation and
// socket writes off the engine thread, whose cost per stream and step is one push here. It also
// looks through all live streams regularly for readers that have stopped reading.
//
// Owner: main. Lifetime: outlives the engine; streams may outlive it.
class StreamWaker {
 public:
  explicit StreamWaker(absl::Duration sweep_interval = absl::Seconds(1));
  ~StreamWaker();
  StreamWaker(const StreamWaker&) = delete;
  StreamWaker& operator=(const StreamWaker&) = delete;

  // Any thread; never blocks for long. Each stream is queued at most once until it is taken from,
  // which bounds the queue by the number of streams.
  void Wake(std::shared_ptr<ResponseStream> stream) ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes the stream part of the regular look for stalled readers.
  void Watch(const std::shared_ptr<ResponseStream>& stream) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run();
  void Sweep();

  const absl::Duration sweep_interval_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<ResponseStream>> awake_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<ResponseStream>> watched_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace moesaic
