#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/aligned_buffer.h"
#include "base/dtype.h"

namespace moesaic {

struct KvShape {
  int32_t num_layers = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  DType dtype = DType::kFloat32;

  int64_t LayerBlockBytes() const;  // K (or V) of one block in one layer
  int64_t BlockBytes() const;       // K and V of one block in all layers
};

// The KV bytes: for each layer K then V as [block][kv_head][16][head_dim]. Allocated once from the
// budget. Owner: engine; written and read by the executor's kernels.
class KvCache {
 public:
  // As many blocks as fit in `budget_bytes`; InvalidArgument when that is not at least one.
  static absl::StatusOr<KvCache> Create(const KvShape& shape, int64_t budget_bytes);

  const KvShape& shape() const { return shape_; }
  int32_t num_blocks() const { return num_blocks_; }
  void* k(int32_t layer) const;
  void* v(int32_t layer) const;

 private:
  KvShape shape_;
  int32_t num_blocks_ = 0;
  AlignedBuffer buffer_;
};

}  // namespace moesaic
