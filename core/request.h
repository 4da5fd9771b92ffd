#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "core/ids.h"
#include "core/sampling_params.h"

namespace moesaic {

// What a client asked for, checked and tokenized by the edge. Plain data; owned by the engine after
// Submit.
struct Request {
  RequestId id = 0;
  std::string client_id;  // the client's own name for it, for logs
  std::vector<int32_t> prompt;
  SamplingParams params;
  absl::Time arrival;
  absl::Time deadline = absl::InfiniteFuture();
};

}  // namespace moesaic
