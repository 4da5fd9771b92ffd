#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/bench/serving_metrics.h"

namespace moesaic::bench {

// What was run, as flag and value, in the order to print.
using RunSetup = std::vector<std::pair<std::string, std::string>>;

// A readable table of the figures.
std::string FormatTable(const RunSetup& setup,
                        const ServingMetrics& metrics,
                        std::span<const double> percentiles);

// The same as one JSON object, indented; with `detailed` also each request's times.
std::string FormatJson(const RunSetup& setup,
                       const ServingMetrics& metrics,
                       std::span<const double> percentiles,
                       std::span<const RequestTrace> traces,
                       bool detailed);

}  // namespace moesaic::bench
