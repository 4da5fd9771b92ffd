#include "kernels/cpu/packing.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"

namespace moesaic::kernels {
namespace {

template <class T, int kStepElements>
void PackVectorOf(const PackSource& source,
                  int64_t first_column,
                  int64_t steps,
                  int64_t panel_columns,
                  int64_t lane,
                  T* panel) {
  const T* data = static_cast<const T*>(source.data);
  for (int64_t step = 0; step < steps; ++step) {
    T* out = panel + (step * panel_columns + lane) * kStepElements;
    for (int64_t c = 0; c < kVectorColumns; ++c) {
      const int64_t column = first_column + c;
      for (int64_t i = 0; i < kStepElements; ++i) {
        const int64_t k = step * kStepElements + i;
        const bool valid = column < source.valid_columns && k < source.valid_depth;
        out[c * kStepElements + i] =
            valid ? data[column * source.column_stride + k * source.depth_stride] : T{};
      }
    }
  }
}

}  // namespace

void PackVector(const PackedMatrix& matrix,
                const PackSource& source,
                int64_t first_column,
                int64_t panel_columns,
                int64_t lane,
                void* panel) {
  if (matrix.dtype == DType::kFloat32) {
    PackVectorOf<uint32_t, 1>(source, first_column, matrix.steps(), panel_columns, lane,
                              static_cast<uint32_t*>(panel));
  } else {
    PackVectorOf<uint16_t, 2>(source, first_column, matrix.steps(), panel_columns, lane,
                              static_cast<uint16_t*>(panel));
  }
}

PackedStripe StripeLayout(const StripeShape& shape) {
  return {{shape.dtype, shape.units * (shape.gated ? 2 : 1), shape.hidden},
          {shape.dtype, shape.hidden, shape.units}};
}

namespace cpu {

size_t PackedLinearBytes(DType dtype, LinearShape shape) {
  return PackedMatrix{dtype, shape.out_features, shape.in_features}.bytes();
}

void PackLinear(DType dtype,
                LinearShape shape,
                const void* weight,
                int64_t first,
                int64_t count,
                void* packed) {
  const PackedMatrix matrix = {dtype, shape.out_features, shape.in_features};
  const PackSource source = {weight, shape.in_features, 1, count, shape.in_features};
  for (int64_t column = 0; column < count; column += kVectorColumns) {
    const int64_t panel = (first + column) / kPanelColumns;
    PackVector(matrix, source, column, matrix.vectors(panel) * kVectorColumns,
               (first + column) % kPanelColumns,
               static_cast<std::byte*>(packed) + panel * matrix.panel_bytes());
  }
}

size_t PackedStripeBytes(const StripeShape& shape) { return StripeLayout(shape).bytes(); }

void PackStripe(const PackStripeArgs& args) {
  const PackedStripe stripe = StripeLayout(args.shape);
  std::byte* const up = static_cast<std::byte*>(args.packed);
  std::byte* const down = up + stripe.down_offset();
  const PackSource gate_rows = {args.gate, args.shape.hidden, 1, args.valid_units,
                                args.shape.hidden};
  PackSource up_rows = gate_rows;
  up_rows.data = args.up;
  for (int64_t unit = 0; unit < args.shape.units; unit += kVectorColumns) {
    // The panel and the lane of the up projection's 16 units.
    const int64_t column = args.shape.gated ? unit * 2 + kVectorColumns : unit;
    std::byte* const panel = up + column / kPanelColumns * stripe.up.panel_bytes();
    if (args.shape.gated) PackVector(stripe.up, gate_rows, unit, kPanelColumns, 0, panel);
    PackVector(stripe.up, up_rows, unit, kPanelColumns, column % kPanelColumns, panel);
  }
  const PackSource down_rows = {args.down, args.down_stride, 1, args.shape.hidden,
                                args.valid_units};
  for (int64_t column = 0; column < args.shape.hidden; column += kVectorColumns) {
    const int64_t panel = column / kPanelColumns;
    PackVector(stripe.down, down_rows, column, stripe.down.vectors(panel) * kVectorColumns,
               column % kPanelColumns, down + panel * stripe.down.panel_bytes());
  }
}

namespace {

// Element k of a row (that is, of a column of the packed matrix).
template <class T>
float PackedElement(const PackedMatrix& matrix, const void* packed, int64_t column, int64_t k) {
  const int64_t panel = column / kPanelColumns;
  const int64_t panel_columns = matrix.vectors(panel) * kVectorColumns;
  const int64_t step_elements = matrix.step_elements();
  const T* data = reinterpret_cast<const T*>(static_cast<const std::byte*>(packed) +
                                             panel * matrix.panel_bytes());
  const T value =
      data[(k / step_elements * panel_columns + column % kPanelColumns) * step_elements +
           k % step_elements];
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    return ToFloat(value);
  }
}

template <class T>
void EmbedRow(const EmbeddingArgs& args, int64_t token, float* output) {
  const PackedMatrix matrix = {args.dtype, args.shape.out_features, args.shape.in_features};
  const T* row = static_cast<const T*>(args.table) + token * args.shape.in_features;
  for (int64_t k = 0; k < args.shape.in_features; ++k) {
    if (args.packed) {
      output[k] = PackedElement<T>(matrix, args.table, token, k);
    } else if constexpr (std::is_same_v<T, float>) {
      output[k] = row[k];
    } else {
      output[k] = ToFloat(row[k]);
    }
  }
}

}  // namespace

void Embedding(const EmbeddingArgs& args, Stream& stream) {
  // Rows of one task: enough that handing it out costs little.
  constexpr int64_t kTaskRows = 8;
  stream.pool->ParallelFor(CeilDiv(args.rows, kTaskRows), [&](int64_t task, int) {
    const int64_t end = std::min(args.rows, (task + 1) * kTaskRows);
    for (int64_t r = task * kTaskRows; r < end; ++r) {
      float* output = args.output + r * args.shape.in_features;
      if (args.dtype == DType::kFloat32) {
        EmbedRow<float>(args, args.tokens[r], output);
      } else {
        EmbedRow<BFloat16>(args, args.tokens[r], output);
      }
    }
  });
}

}  // namespace cpu
}  // namespace moesaic::kernels
