#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/dtype.h"
#include "kernels/expert_ffn.h"
#include "kernels/kernel_table.h"
#include "kernels/linear.h"
#include "memory/expert_store.h"
#include "memory/packed_expert_store.h"
#include "memory/stripe_layout.h"

namespace moesaic {

// The packed weights of a network, in the order its kernels read. Plain owners: filled by
// WeightLoader, read-only afterwards. Owner: the model.

// A dense projection y = x W^T + b.
struct PackedLinear {
  kernels::LinearShape shape;
  AlignedBuffer weight = {};
  AlignedBuffer bias = {};  // float32 [out_features], or empty

  int64_t bytes() const { return static_cast<int64_t>(weight.size() + bias.size()); }
};

// Experts of one shape: the routed experts, or one "expert" per layer that every row visits (shared
// experts, dense layers).
struct PackedExperts {
  StripeLayout layout;
  kernels::StripeShape stripe;
  int64_t stripe_bytes = 0;  // without the padding of its slot
  ExpertStore::Shape store_shape;
  ExpertStore store;                        // empty when there is a pack
  std::unique_ptr<PackedExpertStore> pack;  // routed experts only

  // [num_experts * stripes_per_expert] of one layer; null where a stripe is on the disk alone.
  std::span<const void* const> LayerStripes(int32_t layer) const {
    return pack != nullptr ? pack->LayerStripes(layer) : store.LayerStripes(layer);
  }
  // In RAM.
  int64_t bytes() const { return pack != nullptr ? pack->host_bytes() : store.bytes(); }
  int64_t expert_bytes() const { return layout.num_stripes * stripe_bytes; }
};

struct LayerWeights {
  AlignedBuffer input_norm;  // float32 [hidden]
  PackedLinear qkv;          // q, k, v rows
  AlignedBuffer q_norm;      // float32, empty without QK-norm
  AlignedBuffer k_norm;
  PackedLinear attention_output;
  AlignedBuffer post_attention_norm;  // float32 [hidden]

  PackedLinear gate;                // sparse layers: [num_experts, hidden]
  PackedLinear shared_expert_gate;  // [1, hidden], where there is a shared expert
  int32_t expert_layer = -1;        // sparse: layer in `experts` and `shared_experts`
  int32_t dense_layer = -1;         // dense: layer in `dense_mlps`
};

struct ModelWeights {
  DType dtype = DType::kFloat32;
  AlignedBuffer embedding;  // [vocab, hidden] row-major; empty when tied to lm_head
  std::vector<LayerWeights> layers;
  PackedExperts experts;
  PackedExperts shared_experts;
  PackedExperts dense_mlps;
  AlignedBuffer final_norm;  // float32 [hidden]
  PackedLinear lm_head;

  int64_t bytes() const;
};

}  // namespace moesaic
