#pragma once

#include <cstdint>
#include <vector>

#include "memory/activation_graph.h"

namespace moesaic {

// Where each tensor of a graph lies in one pool of memory. Made once, when a model is loaded, for
// the largest step; a smaller one uses the head of every tensor, which needs no more distance.
struct ActivationPlan {
  std::vector<int64_t> offsets = {};  // by tensor
  int64_t peak_bytes = 0;
};

inline constexpr int64_t kActivationAlignment = 64;

// vMCU's plan: tensors share memory when their lives do not meet, and where one ends in the
// operator that begins the other, as far as TrailDistance() and MayRunInPlace() let them. The
// least peak found: proven least for up to about nine tensors, by search otherwise; never above
// GreedyPlan(). Deterministic. Offsets are multiples of `alignment`.
ActivationPlan PlanActivations(const ActivationGraph& graph,
                               int64_t alignment = kActivationAlignment);

// Baselines. Greedy best fit reuses memory between tensors whose lives do not meet, whole operators
// at a time, each tensor in the smallest gap that holds it; the better of two orders (by size, by
// first use).
ActivationPlan GreedyPlan(const ActivationGraph& graph, int64_t alignment = kActivationAlignment);
ActivationPlan OneBufferPerTensor(const ActivationGraph& graph,
                                  int64_t alignment = kActivationAlignment);

// What no plan of this graph can go below: the most that one operator needs at once.
int64_t PeakLowerBound(const ActivationGraph& graph, int64_t alignment = kActivationAlignment);

// How two tensors may lie to each other. Exposed for tests, which search over them.
struct PlacementRule {
  enum Kind {
    kFree,      // never alive together
    kDisjoint,  // no byte in common
    kTrail,     // disjoint, or `upper` starts at least `distance` above the other
    kInPlace,   // disjoint, or at the same offset
  };
  Kind kind = kFree;
  int32_t upper = -1;
  int64_t distance = 0;
};
// [tensors * tensors], symmetric.
std::vector<PlacementRule> PlacementRules(const ActivationGraph& graph, int64_t alignment);
bool MayLie(const PlacementRule& rule,
            int32_t a,
            int64_t a_offset,
            int64_t a_bytes,
            int32_t b,
            int64_t b_offset,
            int64_t b_bytes);

}  // namespace moesaic
