#pragma once

// Where the panels of a packed matrix [columns, depth] lie. A panel holds 32 output columns (the
// last one 16 when that is enough), padded with zeros, in the order in which a tile reads them:
//   float32   [depth][panel columns]
//   bfloat16  [ceil(depth / 2)][panel columns][2]
// Panels follow each other without gaps and are multiples of 64 bytes.

#include <cstdint>

#include "base/checked_math.h"
#include "base/dtype.h"
#include "kernels/cpu/microkernels.h"
#include "kernels/expert_ffn.h"

namespace moesaic::kernels {

struct PackedMatrix {
  DType dtype = DType::kFloat32;
  int64_t columns = 0;
  int64_t depth = 0;

  // Elements of one column in one depth step.
  int64_t step_elements() const { return dtype == DType::kFloat32 ? 1 : 2; }
  int64_t steps() const { return CeilDiv(depth, step_elements()); }
  int64_t panels() const { return CeilDiv(columns, kPanelColumns); }
  int64_t vectors(int64_t panel) const {
    return columns - panel * kPanelColumns > kVectorColumns ? 2 : 1;
  }
  // Of every panel but the last, which may be half of it.
  int64_t panel_bytes() const { return steps() * kPanelVectors * 64; }
  int64_t bytes() const { return steps() * CeilDiv(columns, kVectorColumns) * 64; }
};

// What to pack: column c's depth element k is data[c * column_stride + k * depth_stride]; elements
// from `valid_depth` on and columns from `valid_columns` on are zero.
struct PackSource {
  const void* data = nullptr;
  int64_t column_stride = 0;
  int64_t depth_stride = 0;
  int64_t valid_columns = 0;
  int64_t valid_depth = 0;
};
// Packs one vector of 16 columns, lanes [lane, lane + 16) of a panel of `panel_columns`.
void PackVector(const PackedMatrix& matrix,
                const PackSource& source,
                int64_t first_column,
                int64_t panel_columns,
                int64_t lane,
                void* panel);

// A packed stripe: the up projection, interleaved with the gate's by vectors of 16 units (gate in
// the first vector of a panel, up in the second) when there is one, then the down projection.
struct PackedStripe {
  PackedMatrix up;  // gated: columns are 2 * units
  PackedMatrix down;

  int64_t down_offset() const { return up.bytes(); }
  int64_t bytes() const { return up.bytes() + down.bytes(); }
};
PackedStripe StripeLayout(const StripeShape& shape);

}  // namespace moesaic::kernels
