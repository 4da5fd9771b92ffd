#pragma once

#include "absl/status/status.h"
#include "memory/activation_graph.h"
#include "memory/activation_plan.h"

namespace moesaic {

// Runs every access of the graph over a pool of labelled segments and fails, naming operator and
// tensor, when one reads what another has overwritten, in any order that the operator allows. The
// proof that a plan is right; for tests and small graphs, as it walks every byte.
absl::Status ReplayAccesses(const ActivationGraph& graph, const ActivationPlan& plan);

}  // namespace moesaic
