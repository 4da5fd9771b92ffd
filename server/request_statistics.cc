#include "server/request_statistics.h"

#include "absl/time/clock.h"
#include "base/log.h"
#include "server/admission.h"
#include "server/grpc_status.h"

namespace moesaic {
namespace {

// A call may end before its sequences do.
const char* FinishName(FinishReason reason, const absl::Status& status) {
  if (reason == FinishReason::kNone && !status.ok()) {
    const bool cancelled = absl::IsCancelled(status) || absl::IsDeadlineExceeded(status);
    reason = cancelled ? FinishReason::kCancelled : FinishReason::kError;
  }
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
    case FinishReason::kNone:
      return "none";
  }
  return "none";
}

}  // namespace

void RequestStatistics::Duration::Add(absl::Duration duration) {
  count.fetch_add(1, std::memory_order_relaxed);
  ns.fetch_add(static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Nanoseconds(duration))),
               std::memory_order_relaxed);
}

void RecordRequestEnd(const AdmittedRequest& request,
                      const absl::Status& status,
                      RequestStatistics& statistics) {
  const absl::Time now = absl::Now();
  const ResponseStream::Progress progress = request.stream->progress();
  const bool started = progress.first_token != absl::InfiniteFuture();
  (status.ok() ? statistics.success : statistics.failure).Add(now - request.arrival);
  if (started) {
    statistics.first_token.Add(progress.first_token - request.arrival);
    statistics.decode.Add(std::min(progress.end, now) - progress.first_token);
  }
  statistics.tokens += static_cast<uint64_t>(progress.usage.completion_tokens);
  statistics.last_inference_ms = absl::ToUnixMillis(now);
  spdlog::info(
      "request id={} client_id={} status={} finish={} prompt_tokens={} cached_tokens={} "
      "completion_tokens={} first_token_ms={:.1f} total_ms={:.1f}",
      request.stream->id(), PrintableText(request.client_id),
      absl::StatusCodeToString(status.code()), FinishName(progress.finish_reason, status),
      request.prompt_tokens, progress.usage.cached_prompt_tokens, progress.usage.completion_tokens,
      started ? absl::ToDoubleMilliseconds(progress.first_token - request.arrival) : -1.0,
      absl::ToDoubleMilliseconds(now - request.arrival));
}

void RecordRefusal(const absl::Status& status, RequestStatistics& statistics) {
  statistics.failure.Add(absl::ZeroDuration());
  spdlog::debug("refused status={} reason=\"{}\"", absl::StatusCodeToString(status.code()),
                std::string(status.message()));
}

}  // namespace moesaic
