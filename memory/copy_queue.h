#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace moesaic {

// Which copy goes first. Within a class, first come, first served.
enum class CopyClass : uint8_t { kDemand, kNextLayer, kLater };
inline constexpr int kNumCopyClasses = 3;

// Stripes waiting to be copied, by class: linked lists over all stripes, so that nothing is
// allocated after construction and a queued copy can be cancelled or moved in constant time. Each
// stripe is queued at most once. Plain data; externally synchronised.
class CopyQueue {
 public:
  explicit CopyQueue(int32_t num_stripes);

  bool Contains(int32_t stripe) const { return class_[stripe] != kNone; }
  // Of a queued stripe.
  CopyClass ClassOf(int32_t stripe) const { return static_cast<CopyClass>(class_[stripe]); }
  int32_t size(CopyClass copy_class) const { return List(copy_class).size; }
  bool empty() const;
  // The first of the class, -1 when it is empty.
  int32_t Front(CopyClass copy_class) const { return List(copy_class).front; }

  // `stripe` is not queued; `before` is -1 (the end) or a stripe queued in this class.
  void Insert(int32_t stripe, CopyClass copy_class, int32_t before = -1);
  // `stripe` is queued.
  void Remove(int32_t stripe);

 private:
  static constexpr uint8_t kNone = 0xff;
  struct Links {
    int32_t previous = -1;
    int32_t next = -1;
  };
  struct Ends {
    int32_t front = -1;
    int32_t back = -1;
    int32_t size = 0;
  };

  Ends& List(CopyClass copy_class) { return lists_[static_cast<int>(copy_class)]; }
  const Ends& List(CopyClass copy_class) const { return lists_[static_cast<int>(copy_class)]; }

  std::array<Ends, kNumCopyClasses> lists_;
  std::vector<Links> links_;    // by stripe
  std::vector<uint8_t> class_;  // by stripe
};

}  // namespace moesaic
