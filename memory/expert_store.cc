#include "memory/expert_store.h"

#include <limits>

#include "base/checked_math.h"
#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {

absl::StatusOr<int64_t> ExpertStore::TotalBytes(const Shape& shape) {
  const std::optional<int64_t> experts = CheckedMul<int64_t>(shape.num_layers, shape.num_experts);
  const std::optional<int64_t> stripes =
      experts ? CheckedMul<int64_t>(*experts, shape.stripes_per_expert) : std::nullopt;
  const std::optional<int64_t> bytes =
      stripes ? CheckedMul(*stripes, shape.slot_bytes) : std::nullopt;
  if (!bytes) {
    return absl::InvalidArgumentError(StrCat(
        "experts are too large: ", shape.num_layers, " layers x ", shape.num_experts, " experts x ",
        shape.stripes_per_expert, " stripes of ", shape.slot_bytes, " bytes"));
  }
  return *bytes;
}

absl::StatusOr<ExpertStore> ExpertStore::Create(const Shape& shape) {
  MOESAIC_ASSIGN_OR_RETURN(const int64_t bytes, TotalBytes(shape));
  ExpertStore store;
  store.shape_ = shape;
  if (bytes == 0) return store;
  MOESAIC_ASSIGN_OR_RETURN(store.buffer_, AlignedBuffer::Allocate(bytes, "experts"));
  store.stripes_.resize(bytes / shape.slot_bytes);
  for (size_t i = 0; i < store.stripes_.size(); ++i) {
    store.stripes_[i] = store.buffer_.data() + i * shape.slot_bytes;
  }
  return store;
}

void* ExpertStore::MutableStripe(StripeId id) {
  return buffer_.data() + Index(id) * shape_.slot_bytes;
}

std::span<const void* const> ExpertStore::LayerStripes(int32_t layer) const {
  const size_t count = static_cast<size_t>(shape_.num_experts) * shape_.stripes_per_expert;
  return std::span<const void* const>(stripes_).subspan(layer * count, count);
}

}  // namespace moesaic
