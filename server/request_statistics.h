#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace moesaic {

struct AdmittedRequest;

// Totals since the start, for Triton's ModelStatistics. Thread: any; a reader may see one request
// counted in some of the totals and not yet in others.
struct RequestStatistics {
  struct Duration {
    std::atomic<uint64_t> count{0};
    std::atomic<uint64_t> ns{0};

    void Add(absl::Duration duration);
  };

  Duration success;
  Duration failure;
  Duration first_token;  // arrival to the first token: queue and prefill
  Duration decode;       // first token to the end
  std::atomic<uint64_t> tokens{0};
  std::atomic<int64_t> last_inference_ms{0};  // since the epoch
};

// The end of a request that the engine had accepted: one log line, and the totals.
void RecordRequestEnd(const AdmittedRequest& request,
                      const absl::Status& status,
                      RequestStatistics& statistics);
// The refusal of one that it had not: a log line at debug level.
void RecordRefusal(const absl::Status& status, RequestStatistics& statistics);

}  // namespace moesaic
