#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/device.h"

namespace moesaic {

// A slot as it was handed out: `generation` changes when the slot is given back, so an old
// reference to a slot in its second life is caught.
struct SlotRef {
  int32_t slot = -1;
  uint32_t generation = 0;
  bool valid() const { return slot >= 0; }
};

// The fast tier's memory: equal slots of one stripe each, in one allocation sized once. Any stripe
// fits any slot, so there is nothing to fragment. The slot given back last is handed out first, so
// that a tier which is never full touches no more memory than it used.
//
// Owner: ExpertCache. Thread: its owner's. No allocation after Create.
class StripeArena {
 public:
  // InvalidArgument when the sizes are not positive or their product overflows; ResourceExhausted
  // when the device has less memory.
  static absl::StatusOr<StripeArena> Create(Device& device, int32_t num_slots, int64_t slot_bytes);
  // Slots that are only counted, Data() is null: for replaying traces in virtual time.
  static StripeArena WithoutMemory(int32_t num_slots, int64_t slot_bytes);

  // An invalid reference when all are taken.
  SlotRef Allocate();
  // `ref` is current.
  void Free(SlotRef ref);
  bool IsCurrent(SlotRef ref) const {
    return ref.valid() && ref.slot < num_slots() && generations_[ref.slot] == ref.generation &&
           (ref.generation & 1) != 0;
  }
  // `ref` is current.
  std::byte* Data(SlotRef ref) const;

  int64_t slot_bytes() const { return slot_bytes_; }
  int32_t num_slots() const { return static_cast<int32_t>(generations_.size()); }
  int32_t used_slots() const { return num_slots() - static_cast<int32_t>(free_.size()); }
  int32_t high_water_slots() const { return high_water_slots_; }

 private:
  StripeArena(int32_t num_slots, int64_t slot_bytes, std::unique_ptr<DeviceMemory> memory);

  int64_t slot_bytes_;
  std::unique_ptr<DeviceMemory> memory_;
  std::vector<uint32_t> generations_;  // by slot; odd while it is taken
  std::vector<int32_t> free_;          // a stack
  int32_t high_water_slots_ = 0;
};

}  // namespace moesaic
