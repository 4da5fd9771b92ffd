#include "memory/stripe_arena.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "base/check.h"
#include "base/checked_math.h"
#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {

StripeArena::StripeArena(int32_t num_slots,
                         int64_t slot_bytes,
                         std::unique_ptr<DeviceMemory> memory)
    : slot_bytes_(slot_bytes), memory_(std::move(memory)), generations_(num_slots, 0) {
  free_.reserve(num_slots);
  for (int32_t slot = num_slots - 1; slot >= 0; --slot) free_.push_back(slot);
}

absl::StatusOr<StripeArena> StripeArena::Create(Device& device,
                                                int32_t num_slots,
                                                int64_t slot_bytes) {
  const std::optional<int64_t> bytes = CheckedMul<int64_t>(num_slots, slot_bytes);
  if (num_slots <= 0 || slot_bytes <= 0 || !bytes) {
    return absl::InvalidArgumentError(
        StrCat("an arena of ", num_slots, " slots of ", slot_bytes, " bytes"));
  }
  MOESAIC_ASSIGN_OR_RETURN(std::unique_ptr<DeviceMemory> memory,
                           device.Allocate(static_cast<size_t>(*bytes), "resident experts"));
  return StripeArena(num_slots, slot_bytes, std::move(memory));
}

StripeArena StripeArena::WithoutMemory(int32_t num_slots, int64_t slot_bytes) {
  return StripeArena(num_slots, slot_bytes, nullptr);
}

SlotRef StripeArena::Allocate() {
  if (free_.empty()) return {};
  const int32_t slot = free_.back();
  free_.pop_back();
  high_water_slots_ = std::max(high_water_slots_, used_slots());
  return {slot, ++generations_[slot]};
}

void StripeArena::Free(SlotRef ref) {
  MOESAIC_CHECK(IsCurrent(ref));
  ++generations_[ref.slot];
  free_.push_back(ref.slot);
}

std::byte* StripeArena::Data(SlotRef ref) const {
  MOESAIC_CHECK(IsCurrent(ref));
  return memory_ == nullptr ? nullptr : memory_->data() + ref.slot * slot_bytes_;
}

}  // namespace moesaic
