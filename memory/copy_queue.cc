#include "memory/copy_queue.h"

#include <algorithm>

#include "base/check.h"

namespace moesaic {

CopyQueue::CopyQueue(int32_t num_stripes) : links_(num_stripes), class_(num_stripes, kNone) {}

bool CopyQueue::empty() const {
  return std::all_of(lists_.begin(), lists_.end(), [](const Ends& list) { return list.size == 0; });
}

void CopyQueue::Insert(int32_t stripe, CopyClass copy_class, int32_t before) {
  MOESAIC_CHECK(!Contains(stripe));
  MOESAIC_CHECK(before < 0 || (Contains(before) && ClassOf(before) == copy_class));
  Ends& list = List(copy_class);
  const int32_t previous = before < 0 ? list.back : links_[before].previous;
  links_[stripe] = {previous, before};
  (previous < 0 ? list.front : links_[previous].next) = stripe;
  (before < 0 ? list.back : links_[before].previous) = stripe;
  ++list.size;
  class_[stripe] = static_cast<uint8_t>(copy_class);
}

void CopyQueue::Remove(int32_t stripe) {
  MOESAIC_CHECK(Contains(stripe));
  Ends& list = List(ClassOf(stripe));
  const Links links = links_[stripe];
  (links.previous < 0 ? list.front : links_[links.previous].next) = links.next;
  (links.next < 0 ? list.back : links_[links.next].previous) = links.previous;
  --list.size;
  class_[stripe] = kNone;
}

}  // namespace moesaic
