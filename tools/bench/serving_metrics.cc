#include "tools/bench/serving_metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace moesaic::bench {
namespace {

constexpr double kMsPerS = 1000.0;

double Tpot(const RequestTrace& trace) {
  if (trace.output_tokens <= 1) return 0;
  return (trace.chunk_s.back() - trace.chunk_s.front()) / (trace.output_tokens - 1);
}

bool MeetsObjectives(const RequestTrace& trace, const Objectives& objectives) {
  const auto meets = [](const std::optional<double>& limit_ms, double seconds) {
    return !limit_ms || seconds * kMsPerS <= *limit_ms;
  };
  return meets(objectives.ttft_ms, trace.chunk_s.front() - trace.sent_s) &&
         meets(objectives.tpot_ms, Tpot(trace)) &&
         meets(objectives.e2el_ms, trace.chunk_s.back() - trace.sent_s);
}

}  // namespace

Distribution Summarize(std::vector<double> values, std::span<const double> percentiles) {
  Distribution result;
  result.count = values.size();
  result.percentiles.assign(percentiles.size(), 0.0);
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  result.min = values.front();
  result.max = values.back();
  result.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  double squares = 0;
  for (double value : values) squares += (value - result.mean) * (value - result.mean);
  result.stddev = std::sqrt(squares / static_cast<double>(values.size()));
  for (size_t i = 0; i < percentiles.size(); ++i) {
    const double rank = percentiles[i] / 100.0 * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(rank);
    const size_t above = std::min(below + 1, values.size() - 1);
    result.percentiles[i] =
        values[below] + (rank - static_cast<double>(below)) * (values[above] - values[below]);
  }
  return result;
}

ServingMetrics ComputeServingMetrics(std::span<const RequestTrace> traces,
                                     std::span<const double> percentiles,
                                     const Objectives& objectives) {
  ServingMetrics metrics;
  std::vector<double> ttft, tpot, itl, e2el, lateness;
  double first_sent = std::numeric_limits<double>::infinity();
  double last_chunk = -first_sent;
  size_t good = 0;
  for (const RequestTrace& trace : traces) {
    if (!trace.ok || trace.chunk_s.empty()) {
      ++metrics.failed;
      continue;
    }
    ++metrics.completed;
    metrics.prompt_tokens += trace.prompt_tokens;
    metrics.output_tokens += trace.output_tokens;
    first_sent = std::min(first_sent, trace.sent_s);
    last_chunk = std::max(last_chunk, trace.chunk_s.back());
    ttft.push_back((trace.chunk_s.front() - trace.sent_s) * kMsPerS);
    e2el.push_back((trace.chunk_s.back() - trace.sent_s) * kMsPerS);
    lateness.push_back((trace.sent_s - trace.intended_s) * kMsPerS);
    if (trace.output_tokens > 1) tpot.push_back(Tpot(trace) * kMsPerS);
    for (size_t i = 1; i < trace.chunk_s.size(); ++i) {
      itl.push_back((trace.chunk_s[i] - trace.chunk_s[i - 1]) * kMsPerS);
    }
    if (MeetsObjectives(trace, objectives)) ++good;
  }
  metrics.duration_s = metrics.completed > 0 ? last_chunk - first_sent : 0;
  if (metrics.duration_s > 0) {
    metrics.requests_per_s = static_cast<double>(metrics.completed) / metrics.duration_s;
    metrics.output_tokens_per_s = static_cast<double>(metrics.output_tokens) / metrics.duration_s;
    metrics.total_tokens_per_s =
        static_cast<double>(metrics.prompt_tokens + metrics.output_tokens) / metrics.duration_s;
    if (objectives.ttft_ms || objectives.tpot_ms || objectives.e2el_ms) {
      metrics.goodput_per_s = static_cast<double>(good) / metrics.duration_s;
    }
  }
  metrics.ttft_ms = Summarize(std::move(ttft), percentiles);
  metrics.tpot_ms = Summarize(std::move(tpot), percentiles);
  metrics.itl_ms = Summarize(std::move(itl), percentiles);
  metrics.e2el_ms = Summarize(std::move(e2el), percentiles);
  metrics.lateness_ms = Summarize(std::move(lateness), percentiles);
  return metrics;
}

}  // namespace moesaic::bench
