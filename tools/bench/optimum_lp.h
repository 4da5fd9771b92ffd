#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "tools/bench/trace_uses.h"

namespace moesaic::bench {

// The fewest bytes that any schedule loads when experts may be kept in part: the interval linear
// program of Belady's problem, solved by HiGHS. Between two uses of an expert a fraction of it is
// kept; what is kept at any moment fits the budget; what is not kept is loaded again. Equal to
// Belady's choice where sizes are equal, and a bound for all others.
//
// `layer_bytes` is the size of an expert of each layer. FailedPrecondition when the program was
// built without HiGHS; Internal when it finds no optimum.
absl::StatusOr<double> LeastBytes(const TraceUses& uses,
                                  std::span<const int64_t> layer_bytes,
                                  int64_t budget_bytes);

}  // namespace moesaic::bench
