#pragma once

#include <cstdint>
#include <vector>

#include "core/ids.h"

namespace moesaic {

// How soon a prefetch is wanted. Demand copies come before both.
enum class PrefetchClass : uint8_t { kNextLayer, kLater };

// Expert bytes to bring before their layer asks for them: a hint that moves bytes and never changes
// a result. Made by a planner, carried out by ExpertMemory::Prefetch.
struct PrefetchPlan {
  static constexpr int32_t kAllStripes = -1;

  struct Entry {
    ExpertId expert;  // the layer numbered among those with routed experts
    int32_t first_stripe = 0;
    int32_t num_stripes = kAllStripes;  // from first_stripe on
    PrefetchClass prefetch_class = PrefetchClass::kNextLayer;
    // When it is expected to be used: step * num_layers + layer. A prefetch still queued then is
    // dropped.
    int64_t tick = 0;
  };

  std::vector<Entry> entries;  // within a class, in the order in which they are wanted
};

}  // namespace moesaic
