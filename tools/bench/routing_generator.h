#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "core/routing_trace_writer.h"

namespace moesaic::bench {

// Synthetic routing of requests that decode side by side, one token each a step
// (docs/routing-traces.md says what each parameter does).
struct RoutingGeneratorOptions {
  int32_t streams = 4;          // requests at a time
  int32_t steps = 384;          // engine steps
  int32_t request_tokens = 96;  // tokens of a request, after which another takes its place
  double zipf = 0.8;            // exponent of popularity; 0: uniform
  int32_t topics = 8;        // each orders the experts of each layer by popularity in its own way
  double drift = 1.0 / 64;   // chance that a request changes its topic at a token
  double correlation = 0.5;  // chance that a choice follows one of the layer before
  double repeat = 0.2;       // chance that a choice repeats one of the token before
  uint64_t seed = 0;
};

// Generates `options` for the writer's shape and appends it; the caller finishes the writer. The
// same options give the same trace on every machine. InvalidArgument names a field that cannot be.
absl::Status GenerateRouting(const RoutingGeneratorOptions& options, RoutingTraceWriter& writer);

}  // namespace moesaic::bench
