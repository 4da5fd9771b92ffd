#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moesaic {

// What a sequence of operators does to the tensors between them, precisely enough to say where an
// output may lie on top of an input that is still being read. Plain data and pure functions, any
// thread.

struct ActivationTensor {
  std::string name;
  int64_t bytes = 0;
  bool input = false;   // holds data before the first operator
  bool output = false;  // is read after the last one
};

// In iteration i of its operator's domain, an access touches `bytes` bytes of the tensor from
// offset + sum over dimensions d of strides[d] * i[d].
struct TensorAccess {
  int32_t tensor = 0;
  int64_t bytes = 0;
  std::vector<int64_t> strides;  // one per dimension of the domain
  int64_t offset = 0;
};

// The points of `domain` run in lexicographic order; within one, all reads come before all writes.
// Points that differ in the first `parallel_dims` dimensions may run at the same time and in any
// order.
struct ActivationOperator {
  std::string name;
  std::vector<int64_t> domain = {};
  int32_t parallel_dims = 0;
  std::vector<TensorAccess> reads = {};
  std::vector<TensorAccess> writes = {};
  std::vector<int32_t> workspace = {};  // tensors that hold data during the operator alone
};

struct ActivationGraph {
  std::vector<ActivationTensor> tensors;
  std::vector<ActivationOperator> operators;  // in execution order

  int32_t Add(std::string name, int64_t bytes);
  // Data that every operator may read: alive from before the first to after the last.
  int32_t AddPersistent(std::string name, int64_t bytes);
};

// First and last operator of a tensor's life, both inclusive. A tensor that nothing touches has
// first > last.
struct Lifetime {
  int32_t first = 0;
  int32_t last = -1;
};
std::vector<Lifetime> Lifetimes(const ActivationGraph& graph);

// vMCU's inequality (Zheng et al., MLSys 2024): an output may overwrite an input while it is being
// consumed as long as every byte read in an iteration lies above all bytes written in earlier ones.
// Returns the least D >= 0 for which that holds when the input starts D bytes above the output; the
// output's whole size where they cannot overlap. For operators without parallel dimensions.
int64_t TrailDistance(const ActivationGraph& graph,
                      const ActivationOperator& op,
                      int32_t input,
                      int32_t output);

// Whether the output may start at the input's own address though points run in any order: each
// point then writes only what itself has read before.
bool MayRunInPlace(const ActivationOperator& op, int32_t input, int32_t output);

// How operators touch memory. `rows`, widths and segments are in the unit of the strides: bytes.

// Each of `rows` rows of the inputs is read whole, then the same row of the outputs is written.
struct RowOperand {
  int32_t tensor = 0;
  int64_t row_bytes = 0;
};
ActivationOperator RowWise(std::string name,
                           int64_t rows,
                           const std::vector<RowOperand>& inputs,
                           const std::vector<RowOperand>& outputs,
                           bool parallel);

// Output[rows, output_row] = input[rows, input_row] W, rows outermost, an output segment per
// iteration. Also a pointwise convolution, whose rows are pixels.
ActivationOperator FullyConnected(
    std::string name, int64_t rows, RowOperand input, RowOperand output, int64_t segment_bytes);

// The same product by workers that own columns: each reads the whole input at any time.
ActivationOperator ColumnParallelLinear(
    std::string name, int64_t rows, RowOperand input, RowOperand output, int64_t column_bytes);

// A pixel of an image of [height, width] pixels.
struct ImageShape {
  int64_t height = 0;
  int64_t width = 0;
  int64_t pixel_bytes = 0;
};
// A convolution, or a whole inverted bottleneck fused into one operator: the output pixel (p, q) is
// written when the window of input pixels around (p, q) * stride is read. `workspace` holds what
// the fused layers keep between them.
ActivationOperator WindowOperator(std::string name,
                                  int32_t input,
                                  const ImageShape& input_shape,
                                  int32_t output,
                                  const ImageShape& output_shape,
                                  int64_t window,
                                  int64_t stride,
                                  std::vector<int32_t> workspace);

// y[rows] = down(act(up x[rows])) as one operator, its hidden activations in `workspace`.
enum class FfnLoopOrder {
  kRowsOutermost,     // weights resident: `step` rows at a time, hidden of those rows
  kStripesOutermost,  // weights stream: `step` stripes in all, hidden of every row for one stripe
};
ActivationOperator FusedFfn(std::string name,
                            FfnLoopOrder order,
                            int64_t rows,
                            RowOperand x,
                            RowOperand y,
                            int64_t step,
                            std::vector<int32_t> workspace);

}  // namespace moesaic
