#include "tools/bench/transitions.h"

#include <algorithm>
#include <functional>

namespace moesaic::bench {
namespace {

void ComputeShares(LayerTransitions& transitions, size_t num_experts) {
  std::array<uint64_t, 3> covered = {};
  std::vector<uint64_t> successors(num_experts);
  for (size_t from = 0; from < num_experts; ++from) {
    const auto row = transitions.counts.begin() + static_cast<ptrdiff_t>(from * num_experts);
    std::copy_n(row, num_experts, successors.begin());
    std::sort(successors.begin(), successors.end(), std::greater<>());
    for (size_t i = 0; i < covered.size(); ++i) {
      const size_t top = std::min<size_t>(LayerTransitions::kTops[i], num_experts);
      for (size_t k = 0; k < top; ++k) covered[i] += successors[k];
    }
  }
  for (size_t i = 0; i < covered.size() && transitions.total > 0; ++i) {
    transitions.share[i] = static_cast<double>(covered[i]) / static_cast<double>(transitions.total);
  }
}

}  // namespace

std::vector<LayerTransitions> CountTransitions(const RoutingTrace& trace) {
  const auto num_experts = static_cast<size_t>(trace.header.num_experts);
  const auto top_k = static_cast<size_t>(trace.header.top_k);
  std::vector<LayerTransitions> all(std::max(trace.header.num_layers - 1, 0));
  for (size_t layer = 0; layer < all.size(); ++layer) {
    all[layer].layer = static_cast<int32_t>(layer);
    all[layer].counts.resize(num_experts * num_experts);
  }
  for (size_t i = 1; i < trace.records.size(); ++i) {
    const RoutingTrace::Record& from = trace.records[i - 1];
    const RoutingTrace::Record& to = trace.records[i];
    // Layers that ran the same rows share their runs.
    if (from.step != to.step || from.layer + 1 != to.layer || from.first_run != to.first_run) {
      continue;
    }
    LayerTransitions& transitions = all[from.layer];
    const std::span<const uint16_t> before = trace.Experts(from);
    const std::span<const uint16_t> after = trace.Experts(to);
    for (size_t row = 0; row < before.size(); row += top_k) {
      for (size_t a = row; a < row + top_k; ++a) {
        for (size_t b = row; b < row + top_k; ++b) {
          ++transitions.counts[before[a] * num_experts + after[b]];
        }
      }
      transitions.total += top_k * top_k;
    }
  }
  for (LayerTransitions& transitions : all) ComputeShares(transitions, num_experts);
  return all;
}

}  // namespace moesaic::bench
