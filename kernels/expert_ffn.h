#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "base/stream.h"

namespace moesaic::kernels {

enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

// Shape of one stripe: S consecutive intermediate units of one expert, a complete partial FFN.
struct StripeShape {
  DType dtype = DType::kFloat32;
  int64_t hidden = 0;  // d
  int64_t units = 0;   // S, a multiple of 64; a last stripe is zero-padded to it
  bool gated = true;   // {gate, up, down}; false: {up, down} (Switch)
};

// Bytes of a packed stripe without padding to 4 KiB (memory/ adds that).
using PackedStripeBytesFn = size_t (*)(const StripeShape& shape);

// Packs one stripe from strided slices of a checkpoint's matrices, in `shape.dtype`: gate and up
// rows [valid_units, hidden] with row stride `hidden`, and columns of down [hidden, *] with row
// stride `down_stride`. Units beyond valid_units become zero.
struct PackStripeArgs {
  StripeShape shape;
  int64_t valid_units = 0;
  const void* gate = nullptr;  // null when not gated
  const void* up = nullptr;
  const void* down = nullptr;  // element [0][first unit of the stripe]
  int64_t down_stride = 0;     // elements
  void* packed = nullptr;
};
using PackStripeFn = void (*)(const PackStripeArgs& args);

// Rows grouped by expert (a counting sort, no padding): expert e owns entries [offsets[e],
// offsets[e + 1]) of `rows` and `weights`. Entries of an expert are in ascending row.
struct ExpertRows {
  int64_t num_experts = 0;
  const int32_t* offsets = nullptr;  // [num_experts + 1]
  const int32_t* rows = nullptr;     // [offsets[num_experts]] source and destination row
  const float* weights = nullptr;    // [offsets[num_experts]] gate weight
};

// Counting sort of a gate's choice into caller-owned arrays: offsets [num_experts + 1], rows and
// weights [num_rows * top_k].
void GroupRowsByExpert(int64_t num_rows,
                       int64_t top_k,
                       int64_t num_experts,
                       const int32_t* experts,
                       const float* gate_weights,
                       int32_t* offsets,
                       int32_t* rows,
                       float* weights);

// Stripes of one expert that a call runs.
//
// An expert's output for a row is one running float32 sum over its units in ascending order, across
// stripes; it is then multiplied by the gate's weight and added to the row. So neither the size of
// stripes nor how they are spread over calls changes a bit.
struct ExpertWork {
  int32_t expert = 0;  // of ExpertRows; has rows
  int32_t first_stripe = 0;
  int32_t num_stripes = 0;
  // [rows of the expert, hidden]: the running sums, which start at zero with stripe 0 and continue
  // from call to call. Null: the work is the whole expert, and is added to the output.
  float* sums = nullptr;
  bool add_to_output = true;  // after these stripes (of which there may be none)
};

// output[r] += weight(r, e) * sum over the units u of expert e, ascending, of
//   down_e[:, u] * (act(gate_e[u] . x[r]) * (up_e[u] . x[r])),
// for the row's experts e in the order of `works` (ascending, for a result that depends on nothing
// else); the hidden activation is rounded to `dtype` before the down projection, every sum is
// float32.
struct ExpertFfnArgs {
  StripeShape shape;
  Activation activation = Activation::kSilu;
  int64_t num_rows = 0;  // rows of input and output
  ExpertRows routed;
  int64_t stripes_per_expert = 0;
  int64_t max_work_stripes = 0;  // as the workspace was sized; 0: stripes_per_expert
  // [num_experts * stripes_per_expert] packed stripes; only those of the works are read.
  const void* const* stripes = nullptr;
  const ExpertWork* works = nullptr;  // at most one per expert
  int64_t num_works = -1;             // -1: every expert that has rows, whole
  const void* input = nullptr;        // [num_rows, hidden] dtype
  float* output = nullptr;            // [num_rows, hidden]
  void* workspace = nullptr;          // ExpertFfnWorkspaceBytes()
};
using ExpertFfnFn = void (*)(const ExpertFfnArgs& args, Stream& stream);
// Enough for any call with at most `max_rows` rows, `max_entries` (rows x top_k) entries and
// `max_work_stripes` stripes in a work.
using ExpertFfnWorkspaceBytesFn = size_t (*)(const StripeShape& shape,
                                             int64_t max_work_stripes,
                                             int64_t num_experts,
                                             int64_t max_rows,
                                             int64_t max_entries,
                                             int num_threads);

}  // namespace moesaic::kernels
