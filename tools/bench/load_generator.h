#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/moesaic/v1/inference.grpc.pb.h"
#include "tools/bench/request_trace.h"
#include "tools/bench/workload.h"

namespace moesaic::bench {

struct LoadOptions {
  int32_t max_concurrency = 0;  // requests in flight at once; 0: no limit
  bool ignore_eos = true;       // generate max_tokens whatever the model says
  float temperature = 0;
  absl::Duration timeout = absl::Minutes(10);  // of one request
  bool progress = true;
};

// Sends `items` to the server, item i not before start + arrivals[i] and at most max_concurrency at
// once, and returns what came back, in the order of `items`. Blocks until the last one has ended; a
// request that fails is a trace with an error, not a failure of the run.
std::vector<RequestTrace> RunLoad(v1::Inference::StubInterface& stub,
                                  std::span<const WorkItem> items,
                                  std::span<const double> arrivals,
                                  const LoadOptions& options);

}  // namespace moesaic::bench
