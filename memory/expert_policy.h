#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace moesaic {

// Which experts stay in fast memory when others need their slots: policies for ExpertCache.
//
// An expert's key is `layer * num_experts + index`, the layer numbered among those with routed
// experts. Time is the tick, `step * num_layers + layer`: when that layer of that step asks for its
// experts. Ticks never decrease from one call to the next.

enum class ExpertPolicyKind {
  kOnDemand,  // keeps nothing: each distinct expert is loaded once per layer and step
  kFifo,      // evicts what was loaded first
  kLru,       // evicts what was used longest ago
  kLfu,       // evicts the furthest next use that decayed use counts let expect
  kFuture,    // the same, with a forecast where there is one
  kBelady,    // evicts the furthest next use, known from a recorded trace
};

// "on-demand", "fifo", "lru", "lfu", "future" or "belady"; InvalidArgument for another name.
absl::StatusOr<ExpertPolicyKind> ParseExpertPolicy(std::string_view name);
std::string_view ExpertPolicyName(ExpertPolicyKind kind);

// When experts are used next, as far as is known: of a recorded trace, or predicted. Owned by the
// caller, outlives the policy.
class UseForecast {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  virtual ~UseForecast() = default;
  // The first tick after `tick` at which `key` is used; kNever when none is known.
  virtual int64_t NextUse(int32_t key, int64_t tick) const = 0;
  // Changes whenever an earlier answer may be wrong now for another reason than time passing.
  virtual uint64_t version() const { return 0; }
};

// Ranks the experts that are resident, wholly or in part. Pure: it copies nothing and knows no
// bytes. Owner: the expert cache. Thread: its caller's. A call costs at most a few microseconds
// with thousands of experts, and the memory is allocated at the start, save for forecasts.
class ExpertPolicy {
 public:
  virtual ~ExpertPolicy() = default;

  // The gate chose `key` for `rows` rows, whether it is resident or not; before OnLoad().
  virtual void OnUse(int32_t key, int64_t tick, int32_t rows) = 0;
  // The first stripe of `key` got a slot.
  virtual void OnLoad(int32_t key, int64_t tick) = 0;
  // The last stripe of `key` lost its slot.
  virtual void OnEvict(int32_t key) = 0;
  // The resident expert to take stripes from, among those for which `evictable` is true; -1 when
  // there is none. The caller may take only a part: the expert stays ranked until OnEvict().
  virtual int32_t ChooseVictim(int64_t tick, absl::FunctionRef<bool(int32_t)> evictable) = 0;
  // False: consumed stripes are given back at once.
  virtual bool keeps_consumed() const { return true; }
};

struct PolicyShape {
  int32_t num_layers = 0;   // with routed experts
  int32_t num_experts = 0;  // of a layer
};

// `forecast` is needed by kFuture and kBelady, and ignored by the others. InvalidArgument when it
// is missing or the shape holds no expert.
absl::StatusOr<std::unique_ptr<ExpertPolicy>> MakeExpertPolicy(ExpertPolicyKind kind,
                                                               const PolicyShape& shape,
                                                               const UseForecast* forecast);

}  // namespace moesaic
