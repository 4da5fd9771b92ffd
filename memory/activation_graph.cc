#include "memory/activation_graph.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace moesaic {
namespace {

// The largest value of factor * i over i in [0, extent).
int64_t MaxOver(int64_t factor, int64_t extent) {
  return std::max<int64_t>(0, factor * (extent - 1));
}

// The largest value of (end of the write in iteration j) - (start of the read in iteration i) over
// all j before i in the domain's dimensions [first_dim, n), or nothing where there is one iteration
// only. Linear over boxes and, in the dimension where j and i part, over a triangle: so the maximum
// is at a corner.
std::optional<int64_t> MaxLead(const std::vector<int64_t>& domain,
                               size_t first_dim,
                               const TensorAccess& read,
                               const TensorAccess& write) {
  std::optional<int64_t> most;
  int64_t equal_dims = write.offset + write.bytes - read.offset;
  for (size_t d = first_dim; d < domain.size(); ++d) {
    if (domain[d] > 1) {
      const int64_t w = write.strides[d];
      const int64_t r = read.strides[d];
      const int64_t last = domain[d] - 1;
      int64_t lead = equal_dims + std::max({-r, -r * last, w * (last - 1) - r * last});
      for (size_t t = d + 1; t < domain.size(); ++t) {
        lead += MaxOver(write.strides[t], domain[t]) + MaxOver(-read.strides[t], domain[t]);
      }
      most = std::max(most.value_or(lead), lead);
    }
    equal_dims += MaxOver(write.strides[d] - read.strides[d], domain[d]);
  }
  return most;
}

// Bytes from the lowest to behind the highest that the access touches while the parallel
// dimensions stand still.
struct Span {
  int64_t begin;
  int64_t end;
};
Span SequentialSpan(const ActivationOperator& op, const TensorAccess& access) {
  Span span = {access.offset, access.offset + access.bytes};
  for (size_t d = op.parallel_dims; d < op.domain.size(); ++d) {
    const int64_t step = access.strides[d] * (op.domain[d] - 1);
    (step < 0 ? span.begin : span.end) += step;
  }
  return span;
}

// Whether different points of the parallel dimensions touch different bytes, when one touches
// `bytes` bytes.
bool PointsAreDisjoint(const ActivationOperator& op, const TensorAccess& access, int64_t bytes) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, extent
  for (int32_t d = 0; d < op.parallel_dims; ++d) {
    if (op.domain[d] > 1) dims.emplace_back(access.strides[d], op.domain[d]);
  }
  std::sort(dims.begin(), dims.end());
  int64_t inner = bytes;
  for (const auto& [stride, extent] : dims) {
    if (stride < inner) return false;
    inner = stride * (extent - 1) + inner;
  }
  return true;
}

}  // namespace

int32_t ActivationGraph::Add(std::string name, int64_t bytes) {
  tensors.push_back({.name = std::move(name), .bytes = bytes});
  return static_cast<int32_t>(tensors.size()) - 1;
}

int32_t ActivationGraph::AddPersistent(std::string name, int64_t bytes) {
  const int32_t tensor = Add(std::move(name), bytes);
  tensors[tensor].input = true;
  tensors[tensor].output = true;
  return tensor;
}

std::vector<Lifetime> Lifetimes(const ActivationGraph& graph) {
  const int32_t num_operators = static_cast<int32_t>(graph.operators.size());
  std::vector<Lifetime> lifetimes(graph.tensors.size(), {num_operators, -1});
  for (int32_t o = 0; o < num_operators; ++o) {
    const auto touch = [&](int32_t tensor) {
      lifetimes[tensor].first = std::min(lifetimes[tensor].first, o);
      lifetimes[tensor].last = o;
    };
    for (const TensorAccess& access : graph.operators[o].reads) touch(access.tensor);
    for (const TensorAccess& access : graph.operators[o].writes) touch(access.tensor);
    for (const int32_t tensor : graph.operators[o].workspace) touch(tensor);
  }
  for (size_t t = 0; t < graph.tensors.size(); ++t) {
    if (graph.tensors[t].input) lifetimes[t].first = 0;
    if (graph.tensors[t].output) lifetimes[t].last = std::max(0, num_operators - 1);
  }
  return lifetimes;
}

int64_t TrailDistance(const ActivationGraph& graph,
                      const ActivationOperator& op,
                      int32_t input,
                      int32_t output) {
  int64_t distance = 0;
  for (const TensorAccess& read : op.reads) {
    if (read.tensor != input) continue;
    for (const TensorAccess& write : op.writes) {
      if (write.tensor != output) continue;
      distance = std::max(distance, MaxLead(op.domain, 0, read, write).value_or(0));
    }
  }
  return std::min(distance, graph.tensors[output].bytes);
}

bool MayRunInPlace(const ActivationOperator& op, int32_t input, int32_t output) {
  for (const TensorAccess& read : op.reads) {
    if (read.tensor != input) continue;
    for (const TensorAccess& write : op.writes) {
      if (write.tensor != output) continue;
      for (int32_t d = 0; d < op.parallel_dims; ++d) {
        if (op.domain[d] > 1 && read.strides[d] != write.strides[d]) return false;
      }
      const Span r = SequentialSpan(op, read);
      const Span w = SequentialSpan(op, write);
      if (!PointsAreDisjoint(op, read, std::max(r.end, w.end) - std::min(r.begin, w.begin))) {
        return false;
      }
      if (MaxLead(op.domain, op.parallel_dims, read, write).value_or(0) > 0) return false;
    }
  }
  return true;
}

ActivationOperator RowWise(std::string name,
                           int64_t rows,
                           const std::vector<RowOperand>& inputs,
                           const std::vector<RowOperand>& outputs,
                           bool parallel) {
  ActivationOperator op = {.name = std::move(name), .domain = {rows}};
  op.parallel_dims = parallel ? 1 : 0;
  for (const RowOperand& x : inputs) op.reads.push_back({x.tensor, x.row_bytes, {x.row_bytes}});
  for (const RowOperand& y : outputs) op.writes.push_back({y.tensor, y.row_bytes, {y.row_bytes}});
  return op;
}

ActivationOperator FullyConnected(
    std::string name, int64_t rows, RowOperand input, RowOperand output, int64_t segment_bytes) {
  ActivationOperator op = {.name = std::move(name),
                           .domain = {rows, output.row_bytes / segment_bytes}};
  op.reads = {{input.tensor, input.row_bytes, {input.row_bytes, 0}}};
  op.writes = {{output.tensor, segment_bytes, {output.row_bytes, segment_bytes}}};
  return op;
}

ActivationOperator ColumnParallelLinear(
    std::string name, int64_t rows, RowOperand input, RowOperand output, int64_t column_bytes) {
  const int64_t columns = output.row_bytes / column_bytes;
  ActivationOperator op = {.name = std::move(name), .domain = {columns, rows}};
  op.parallel_dims = 1;
  op.reads = {{input.tensor, input.row_bytes, {0, input.row_bytes}}};
  op.writes = {{output.tensor, column_bytes, {column_bytes, output.row_bytes}}};
  return op;
}

ActivationOperator WindowOperator(std::string name,
                                  int32_t input,
                                  const ImageShape& input_shape,
                                  int32_t output,
                                  const ImageShape& output_shape,
                                  int64_t window,
                                  int64_t stride,
                                  std::vector<int32_t> workspace) {
  ActivationOperator op = {.name = std::move(name),
                           .domain = {output_shape.height, output_shape.width}};
  const int64_t input_row = input_shape.width * input_shape.pixel_bytes;
  const int64_t pad = window / 2;
  // One access per row of the window; at the edges it names bytes of neighbouring rows or outside
  // the tensor, which only makes the distance larger.
  for (int64_t r = 0; r < window; ++r) {
    op.reads.push_back({.tensor = input,
                        .bytes = window * input_shape.pixel_bytes,
                        .strides = {stride * input_row, stride * input_shape.pixel_bytes},
                        .offset = (r - pad) * input_row - pad * input_shape.pixel_bytes});
  }
  op.writes = {{output,
                output_shape.pixel_bytes,
                {output_shape.width * output_shape.pixel_bytes, output_shape.pixel_bytes}}};
  op.workspace = std::move(workspace);
  return op;
}

ActivationOperator FusedFfn(std::string name,
                            FfnLoopOrder order,
                            int64_t rows,
                            RowOperand x,
                            RowOperand y,
                            int64_t step,
                            std::vector<int32_t> workspace) {
  ActivationOperator op = {.name = std::move(name), .workspace = std::move(workspace)};
  if (order == FfnLoopOrder::kRowsOutermost) {
    // A last tile of fewer rows counts as a whole one: accesses end with their tensor.
    op.domain = {(rows + step - 1) / step};
    op.reads = {{x.tensor, step * x.row_bytes, {step * x.row_bytes}}};
    op.writes = {{y.tensor, step * y.row_bytes, {step * y.row_bytes}}};
  } else {
    op.domain = {step};
    op.reads = {{x.tensor, rows * x.row_bytes, {0}}};
    op.writes = {{y.tensor, rows * y.row_bytes, {0}}};
  }
  return op;
}

}  // namespace moesaic
