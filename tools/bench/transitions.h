#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/routing_trace.h"

namespace moesaic::bench {

// The flow of rows between the experts of a layer and those of the next: every pair of an expert
// that a row chose in the one and in the other counts once, so a row adds top_k^2.
struct LayerTransitions {
  static constexpr std::array<int32_t, 3> kTops = {1, 2, 4};

  int32_t layer = 0;             // to `layer + 1`
  std::vector<uint64_t> counts;  // [from, to]
  uint64_t total = 0;
  // The part of the flow that goes to the 1, 2 and 4 likeliest successors of each expert; at most
  // that number / top_k.
  std::array<double, 3> share = {};
};

// One for each pair of adjacent layers, over the steps that hold both with the same rows.
std::vector<LayerTransitions> CountTransitions(const RoutingTrace& trace);

}  // namespace moesaic::bench
