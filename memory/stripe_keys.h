#pragma once

#include <cstdint>
#include <limits>

#include "core/ids.h"

namespace moesaic {

// Dense numbers for the experts and stripes of a model: tables are indexed by them.
struct StripeKeys {
  int32_t num_layers = 0;  // with routed experts, numbered among themselves
  int32_t num_experts = 0;
  int32_t stripes_per_expert = 0;

  // Whether every key fits.
  bool valid() const {
    return num_layers > 0 && num_experts > 0 && stripes_per_expert > 0 &&
           int64_t{num_experts} * stripes_per_expert <=
               std::numeric_limits<int32_t>::max() / num_layers;
  }
  int32_t experts() const { return num_layers * num_experts; }
  int32_t stripes() const { return experts() * stripes_per_expert; }

  int32_t Expert(ExpertId id) const { return id.layer * num_experts + id.index; }
  int32_t FirstStripe(int32_t expert) const { return expert * stripes_per_expert; }
  int32_t Stripe(StripeId id) const { return FirstStripe(Expert(id.expert)) + id.stripe; }
  int32_t ExpertOf(int32_t stripe) const { return stripe / stripes_per_expert; }
  StripeId Id(int32_t stripe) const {
    const int32_t expert = ExpertOf(stripe);
    return {{expert / num_experts, expert % num_experts}, stripe % stripes_per_expert};
  }
};

}  // namespace moesaic
