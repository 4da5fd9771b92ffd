#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/aligned_buffer.h"
#include "core/ids.h"

namespace moesaic {

// All packed stripes of a model's experts in RAM, one slot per stripe: where a layer finds the
// bytes of a StripeId.
//
// Owner: the model. Thread: slots are filled by the loading threads, each slot by one; read-only
// afterwards, by any.
class ExpertStore {
 public:
  struct Shape {
    int32_t num_layers = 0;  // layers that have experts here, numbered by the caller
    int32_t num_experts = 0;
    int32_t stripes_per_expert = 0;
    int64_t slot_bytes = 0;  // a multiple of kStripeAlignmentBytes

    bool operator==(const Shape&) const = default;
  };

  ExpertStore() = default;

  // Bytes of all slots; InvalidArgument when they do not fit in an int64.
  static absl::StatusOr<int64_t> TotalBytes(const Shape& shape);
  // Reserves every slot; memory is committed when a slot is written.
  static absl::StatusOr<ExpertStore> Create(const Shape& shape);

  const Shape& shape() const { return shape_; }
  int64_t bytes() const { return static_cast<int64_t>(buffer_.size()); }

  // The slot to pack a stripe into while loading.
  void* MutableStripe(StripeId id);
  const void* Stripe(StripeId id) const { return stripes_[Index(id)]; }
  // [num_experts * stripes_per_expert] of one layer, in ascending expert, then stripe.
  std::span<const void* const> LayerStripes(int32_t layer) const;

 private:
  size_t Index(StripeId id) const {
    return (static_cast<size_t>(id.expert.layer) * shape_.num_experts + id.expert.index) *
               shape_.stripes_per_expert +
           id.stripe;
  }

  Shape shape_;
  AlignedBuffer buffer_;
  std::vector<const void*> stripes_;  // by Index()
};

}  // namespace moesaic
