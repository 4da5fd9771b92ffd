#pragma once

#include <compare>
#include <cstdint>

namespace moesaic {

// Numbers a request for its whole life in this process; never reused.
using RequestId = uint64_t;

// One expert of one MoE layer.
struct ExpertId {
  int32_t layer = 0;
  int32_t index = 0;
  auto operator<=>(const ExpertId&) const = default;
};

// A computable part of one expert: a run of its intermediate units (memory/stripe_layout.h).
struct StripeId {
  ExpertId expert;
  int32_t stripe = 0;
  auto operator<=>(const StripeId&) const = default;
};

}  // namespace moesaic
