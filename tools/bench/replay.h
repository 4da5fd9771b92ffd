#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "memory/expert_policy.h"
#include "tools/bench/trace_uses.h"

namespace moesaic::bench {

// Times of the machine and model that a replay pretends to run on.
struct ReplayTimes {
  int64_t stripe_bytes = 0;
  int32_t stripes_per_expert = 1;
  double dense_layer_s = 0;       // attention and gate of a layer
  double stripe_s = 0;            // reading a stripe's weights from fast memory
  double stripe_row_s = 0;        // computing one row with it; the larger of the two counts
  double link_bytes_per_s = 1e9;  // slow to fast memory
};

struct ReplayOptions {
  ExpertPolicyKind policy = ExpertPolicyKind::kLfu;
  int64_t budget_stripes = 0;
  int32_t lookahead = 0;  // ticks that the oracle's prefetch plan looks ahead; 0: no prefetch
  // Whether residents that a layer uses keep their slots until it ends, as in the engine, where
  // kernels are reading them. Off for the optimum, which no engine has to follow.
  bool pin_residents = true;
};

struct ReplayResult {
  int64_t used_stripes = 0;        // needed by the layers
  int64_t hit_stripes = 0;         // of these resident when asked for
  int64_t late_stripes = 0;        // of these on their way by a prefetch
  int64_t demand_stripes = 0;      // loaded because a layer waited
  int64_t prefetched_stripes = 0;  // loaded ahead
  int64_t wasted_stripes = 0;      // prefetched and evicted unused
  int64_t demand_experts = 0;      // experts of which a layer demanded at least one stripe
  double time_s = 0;
  double stall_s = 0;  // of it, waiting for copies

  int64_t loaded_stripes() const { return demand_stripes + prefetched_stripes; }
};

// Runs `uses` in virtual time: no clock, no thread, the same result everywhere. One copy runs at a
// time, demands before prefetches, a stripe as the unit. A layer first computes what is resident,
// then each missing stripe as it lands; a stripe that landed and was consumed may be evicted by the
// next one, so that a layer streams when little fits. InvalidArgument for a budget below one
// stripe.
absl::StatusOr<ReplayResult> Replay(const TraceUses& uses,
                                    const ReplayTimes& times,
                                    const ReplayOptions& options);

// The stripes that Belady's choice loads, the fewest of all that a budget allows.
absl::StatusOr<int64_t> OptimalStripes(const TraceUses& uses,
                                       int32_t stripes_per_expert,
                                       int64_t budget_stripes);

}  // namespace moesaic::bench
