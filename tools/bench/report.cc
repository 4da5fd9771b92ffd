#include "tools/bench/report.h"

#include <array>
#include <map>

#include "absl/strings/str_format.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"

namespace moesaic::bench {
namespace {

struct NamedDistribution {
  const char* name;
  const char* title;
  const Distribution& values;
};

std::array<NamedDistribution, 5> Distributions(const ServingMetrics& metrics) {
  return {{{"ttft_ms", "TTFT, ms", metrics.ttft_ms},
           {"tpot_ms", "TPOT, ms", metrics.tpot_ms},
           {"itl_ms", "ITL, ms", metrics.itl_ms},
           {"e2el_ms", "E2E, ms", metrics.e2el_ms},
           {"lateness_ms", "client lateness, ms", metrics.lateness_ms}}};
}

std::string PercentileName(double percentile) { return StrCat("p", percentile); }

// How many requests failed with each message.
std::map<std::string, int> CountErrors(std::span<const RequestTrace> traces) {
  std::map<std::string, int> errors;
  for (const RequestTrace& trace : traces) {
    if (!trace.ok) ++errors[trace.error];
  }
  return errors;
}

}  // namespace

std::string FormatTable(const RunSetup& setup,
                        const ServingMetrics& metrics,
                        std::span<const double> percentiles) {
  std::string text;
  for (const auto& [name, value] : setup) absl::StrAppendFormat(&text, "%-22s %s\n", name, value);
  absl::StrAppendFormat(&text, "\n%-22s %d completed, %d failed, in %.2f s\n", "requests",
                        metrics.completed, metrics.failed, metrics.duration_s);
  absl::StrAppendFormat(&text, "%-22s %d in, %d out\n", "tokens", metrics.prompt_tokens,
                        metrics.output_tokens);
  absl::StrAppendFormat(
      &text, "%-22s %.2f requests/s, %.1f output tokens/s, %.1f tokens/s in all\n", "throughput",
      metrics.requests_per_s, metrics.output_tokens_per_s, metrics.total_tokens_per_s);
  if (metrics.goodput_per_s)
    absl::StrAppendFormat(&text, "%-22s %.2f requests/s\n", "goodput", *metrics.goodput_per_s);
  absl::StrAppendFormat(&text, "\n%-22s %10s %10s", "", "mean", "min");
  for (double percentile : percentiles)
    absl::StrAppendFormat(&text, " %10s", PercentileName(percentile));
  absl::StrAppendFormat(&text, " %10s\n", "max");
  for (const auto& [name, title, values] : Distributions(metrics)) {
    absl::StrAppendFormat(&text, "%-22s %10.2f %10.2f", title, values.mean, values.min);
    for (double value : values.percentiles) absl::StrAppendFormat(&text, " %10.2f", value);
    absl::StrAppendFormat(&text, " %10.2f\n", values.max);
  }
  return text;
}

std::string FormatJson(const RunSetup& setup,
                       const ServingMetrics& metrics,
                       std::span<const double> percentiles,
                       std::span<const RequestTrace> traces,
                       bool detailed) {
  Json json;
  for (const auto& [name, value] : setup) json["setup"][name] = value;
  json["completed"] = metrics.completed;
  json["failed"] = metrics.failed;
  json["duration_s"] = metrics.duration_s;
  json["prompt_tokens"] = metrics.prompt_tokens;
  json["output_tokens"] = metrics.output_tokens;
  json["requests_per_s"] = metrics.requests_per_s;
  json["output_tokens_per_s"] = metrics.output_tokens_per_s;
  json["total_tokens_per_s"] = metrics.total_tokens_per_s;
  if (metrics.goodput_per_s) json["goodput_requests_per_s"] = *metrics.goodput_per_s;
  for (const auto& [name, title, values] : Distributions(metrics)) {
    Json& entry = json[name];
    entry = {{"count", values.count},
             {"mean", values.mean},
             {"std", values.stddev},
             {"min", values.min},
             {"max", values.max}};
    for (size_t i = 0; i < percentiles.size(); ++i)
      entry[PercentileName(percentiles[i])] = values.percentiles[i];
  }
  for (const auto& [error, count] : CountErrors(traces)) json["errors"][error] = count;
  if (detailed) {
    for (const RequestTrace& trace : traces) {
      json["requests"].push_back({{"intended_s", trace.intended_s},
                                  {"sent_s", trace.sent_s},
                                  {"chunk_s", trace.chunk_s},
                                  {"chunk_tokens", trace.chunk_tokens},
                                  {"prompt_tokens", trace.prompt_tokens},
                                  {"output_tokens", trace.output_tokens},
                                  {"error", trace.error}});
    }
  }
  // Server messages may hold any bytes; invalid UTF-8 is replaced rather than thrown on.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace moesaic::bench
