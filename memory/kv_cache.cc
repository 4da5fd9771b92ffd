#include "memory/kv_cache.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "base/checked_math.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "core/batch.h"

namespace moesaic {
namespace {

// BlockBytes() of any shape; nothing when a field is not positive or the product overflows.
std::optional<int64_t> CheckedBlockBytes(const KvShape& shape) {
  if (shape.num_layers <= 0 || shape.num_kv_heads <= 0 || shape.head_dim <= 0) return std::nullopt;
  std::optional<int64_t> bytes = int64_t{2} * kKvBlockTokens;
  for (int64_t factor :
       {static_cast<int64_t>(DTypeBytes(shape.dtype)), static_cast<int64_t>(shape.head_dim),
        static_cast<int64_t>(shape.num_kv_heads), static_cast<int64_t>(shape.num_layers)}) {
    if (bytes.has_value()) bytes = CheckedMul(*bytes, factor);
  }
  return bytes;
}

}  // namespace

int64_t KvShape::LayerBlockBytes() const {
  return static_cast<int64_t>(DTypeBytes(dtype)) * kKvBlockTokens * num_kv_heads * head_dim;
}

int64_t KvShape::BlockBytes() const { return 2 * LayerBlockBytes() * num_layers; }

absl::StatusOr<KvCache> KvCache::Create(const KvShape& shape, int64_t budget_bytes) {
  const std::optional<int64_t> block_bytes = CheckedBlockBytes(shape);
  if (!block_bytes.has_value()) {
    return absl::InvalidArgumentError(StrCat("KV cache: no such shape: ", shape.num_layers,
                                             " layers, ", shape.num_kv_heads, " KV heads of ",
                                             shape.head_dim));
  }
  if (budget_bytes < *block_bytes) {
    return absl::InvalidArgumentError(StrCat("KV cache: ", budget_bytes,
                                             " bytes do not hold one block of ", kKvBlockTokens,
                                             " tokens, which takes ", *block_bytes));
  }
  KvCache cache;
  cache.shape_ = shape;
  // Blocks are numbered by int32_t.
  cache.num_blocks_ = static_cast<int32_t>(
      std::min<int64_t>(budget_bytes / *block_bytes, std::numeric_limits<int32_t>::max()));
  MOESAIC_ASSIGN_OR_RETURN(
      cache.buffer_,
      AlignedBuffer::Allocate(static_cast<size_t>(cache.num_blocks_ * *block_bytes), "KV cache"));
  return cache;
}

void* KvCache::k(int32_t layer) const {
  return buffer_.data() + int64_t{2} * layer * num_blocks_ * shape_.LayerBlockBytes();
}

void* KvCache::v(int32_t layer) const {
  return buffer_.data() + (int64_t{2} * layer + 1) * num_blocks_ * shape_.LayerBlockBytes();
}

}  // namespace moesaic
