#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/bench/request_trace.h"

namespace moesaic::bench {

// Mean and percentiles of one quantity over a run.
struct Distribution {
  size_t count = 0;
  double mean = 0;
  double stddev = 0;  // of the population
  double min = 0;
  double max = 0;
  std::vector<double> percentiles;  // in the order asked for
};

// Percentiles by linear interpolation between closest ranks, as numpy's default. All zero for no
// values.
Distribution Summarize(std::vector<double> values, std::span<const double> percentiles);

// Objectives of goodput in milliseconds; a request is good when it meets all that are set.
struct Objectives {
  std::optional<double> ttft_ms;
  std::optional<double> tpot_ms;
  std::optional<double> e2el_ms;
};

// Figures of one run, named and defined as by vLLM's `bench serve`:
//   TTFT  first message with tokens - sent
//   ITL   every gap between messages of a request, pooled over requests
//   TPOT  (E2EL - TTFT) / (output tokens - 1), of requests with more than one (AIPerf calls this
//   ITL) E2EL  last message with tokens - sent lateness  sent - intended: what the client itself
//   delayed (coordinated omission)
// Requests that failed count only in `failed`.
struct ServingMetrics {
  size_t completed = 0;
  size_t failed = 0;
  double duration_s = 0;  // from the first request sent to the last message
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  double requests_per_s = 0;
  double output_tokens_per_s = 0;
  double total_tokens_per_s = 0;
  std::optional<double>
      goodput_per_s;  // when an objective is set; a single-token request has TPOT 0
  Distribution ttft_ms;
  Distribution tpot_ms;
  Distribution itl_ms;
  Distribution e2el_ms;
  Distribution lateness_ms;
};

ServingMetrics ComputeServingMetrics(std::span<const RequestTrace> traces,
                                     std::span<const double> percentiles,
                                     const Objectives& objectives);

}  // namespace moesaic::bench
