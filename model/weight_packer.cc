#include "model/weight_packer.h"

#include <algorithm>

#include "base/checked_math.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"

namespace moesaic {
namespace {

constexpr int64_t kMaxMappedBytes = 64 << 20;
constexpr int64_t kTaskBytes = 1 << 20;
constexpr int64_t kPackRowMultiple = 64;  // PackLinearFn's unit of division between threads

}  // namespace

WeightPacker::WeightPacker(const kernels::KernelTable& kernels,
                           Stream stream,
                           DType dtype,
                           const Checkpoint* checkpoint,
                           ProgressLine& progress)
    : kernels_(kernels),
      stream_(stream),
      dtype_(dtype),
      checkpoint_(checkpoint),
      progress_(progress),
      scratch_(stream.pool->num_threads()) {}

std::byte* WeightPacker::Scratch(int worker, int64_t bytes) {
  std::vector<std::byte>& scratch = scratch_[worker];
  if (static_cast<int64_t>(scratch.size()) < bytes) scratch.resize(bytes);
  return scratch.data();
}

void WeightPacker::Release(const WeightMatrix& matrix, int64_t first_row, int64_t num_rows) {
  if (matrix.generated()) return;
  TensorView part;
  part.name = matrix.tensor;
  part.data = matrix.Rows(first_row, num_rows);
  checkpoint_->Release(part);
}

const void* WeightPacker::StackedRows(std::span<const WeightMatrix> parts,
                                      int64_t first,
                                      int64_t count,
                                      int worker) {
  const int64_t cols = parts.front().cols;
  std::byte* out = nullptr;
  int64_t part_first = 0;
  for (const WeightMatrix& part : parts) {
    const int64_t begin = std::max(first, part_first);
    const int64_t end = std::min(first + count, part_first + part.rows);
    if (begin < end) {
      if (end - begin == count) {
        const void* in_place = part.InPlace(begin - part_first, 0, dtype_);
        if (in_place != nullptr) return in_place;
      }
      if (out == nullptr) out = Scratch(worker, count * cols * DTypeBytes(dtype_));
      CopyWeights(part, begin - part_first, end - begin, 0, cols, dtype_,
                  out + (begin - first) * cols * DTypeBytes(dtype_), cols);
    }
    part_first += part.rows;
  }
  return out;
}

absl::Status WeightPacker::PackLinear(std::span<const WeightMatrix> parts, PackedLinear& linear) {
  const kernels::LinearShape shape = linear.shape;
  MOESAIC_ASSIGN_OR_RETURN(
      linear.weight,
      AlignedBuffer::Allocate(kernels_.packed_linear_bytes(dtype_, shape), "dense weights"));
  const int64_t row_bytes = shape.in_features * static_cast<int64_t>(DTypeBytes(dtype_));
  const int64_t task_rows = RoundUp(std::max(kTaskBytes / row_bytes, int64_t{1}), kPackRowMultiple);
  const int64_t group_rows =
      std::max(kMaxMappedBytes / row_bytes / task_rows, int64_t{1}) * task_rows;
  for (int64_t first = 0; first < shape.out_features; first += group_rows) {
    const int64_t last = std::min(first + group_rows, shape.out_features);
    stream_.pool->ParallelFor(CeilDiv(last - first, task_rows), [&](int64_t task, int worker) {
      const int64_t row = first + task * task_rows;
      const int64_t count = std::min(task_rows, last - row);
      kernels_.pack_linear(dtype_, shape, StackedRows(parts, row, count, worker), row, count,
                           linear.weight.data());
    });
    int64_t part_first = 0;
    for (const WeightMatrix& part : parts) {
      const int64_t begin = std::max(first, part_first);
      const int64_t end = std::min(last, part_first + part.rows);
      if (begin < end) Release(part, begin - part_first, end - begin);
      part_first += part.rows;
    }
    const auto packed_up_to = [&](int64_t row) {
      return linear.weight.size() / shape.out_features * row;
    };
    progress_.Advance(last < shape.out_features ? packed_up_to(last) - packed_up_to(first)
                                                : linear.weight.size() - packed_up_to(first));
  }
  return absl::OkStatus();
}

absl::Status WeightPacker::PackTable(const WeightMatrix& matrix, AlignedBuffer& table) {
  const int64_t row_bytes = matrix.cols * static_cast<int64_t>(DTypeBytes(dtype_));
  MOESAIC_ASSIGN_OR_RETURN(table,
                           AlignedBuffer::Allocate(matrix.rows * row_bytes, "token embedding"));
  const int64_t task_rows = std::max(kTaskBytes / row_bytes, int64_t{1});
  const int64_t group_rows = std::max(kMaxMappedBytes / row_bytes, task_rows);
  for (int64_t first = 0; first < matrix.rows; first += group_rows) {
    const int64_t last = std::min(first + group_rows, matrix.rows);
    stream_.pool->ParallelFor(CeilDiv(last - first, task_rows), [&](int64_t task, int) {
      const int64_t row = first + task * task_rows;
      CopyWeights(matrix, row, std::min(task_rows, last - row), 0, matrix.cols, dtype_,
                  table.data() + row * row_bytes, matrix.cols);
    });
    Release(matrix, first, last - first);
    progress_.Advance(static_cast<uint64_t>((last - first) * row_bytes));
  }
  return absl::OkStatus();
}

absl::Status WeightPacker::PackVectors(std::span<const WeightMatrix> parts, AlignedBuffer& vector) {
  int64_t size = 0;
  for (const WeightMatrix& part : parts) size += part.cols;
  MOESAIC_ASSIGN_OR_RETURN(vector, AlignedBuffer::Allocate(size * sizeof(float), "dense weights"));
  float* out = vector.as<float>();
  for (const WeightMatrix& part : parts) {
    CopyWeights(part, 0, 1, 0, part.cols, DType::kFloat32, out, part.cols);
    Release(part, 0, 1);
    out += part.cols;
  }
  progress_.Advance(vector.size());
  return absl::OkStatus();
}

absl::Status WeightPacker::PackExperts(std::span<const ExpertMatrices> matrices,
                                       int32_t layer,
                                       const PackedExperts& experts,
                                       ExpertSink& sink) {
  const int64_t num_experts = static_cast<int64_t>(matrices.size());
  const int64_t num_stripes = experts.layout.num_stripes;
  if (sink.HasLayer(layer)) {
    progress_.Advance(
        static_cast<uint64_t>(num_experts * num_stripes * experts.store_shape.slot_bytes));
    return absl::OkStatus();
  }
  const int64_t group = std::max(kMaxMappedBytes / experts.expert_bytes(), int64_t{1});
  std::vector<absl::Status> failures(stream_.pool->num_threads());  // per worker
  for (int64_t first = 0; first < num_experts; first += group) {
    const int64_t last = std::min(first + group, num_experts);
    stream_.pool->ParallelFor((last - first) * num_stripes, [&](int64_t task, int worker) {
      const int64_t expert = first + task / num_stripes;
      const StripeId id = {.expert = {.layer = layer, .index = static_cast<int32_t>(expert)},
                           .stripe = static_cast<int32_t>(task % num_stripes)};
      if (!failures[worker].ok()) return;
      failures[worker] = PackStripe(matrices[expert], id, worker, experts, sink);
    });
    for (const absl::Status& failure : failures) MOESAIC_RETURN_IF_ERROR(failure);
    for (int64_t expert = first; expert < last; ++expert) {
      const ExpertMatrices& released = matrices[expert];
      Release(released.gate, 0, released.gate.rows);
      Release(released.up, 0, released.up.rows);
      Release(released.down, 0, released.down.rows);
    }
    progress_.Advance(
        static_cast<uint64_t>((last - first) * num_stripes * experts.store_shape.slot_bytes));
  }
  return sink.FinishLayer(layer);
}

absl::Status WeightPacker::PackStripe(const ExpertMatrices& expert,
                                      StripeId id,
                                      int worker,
                                      const PackedExperts& experts,
                                      ExpertSink& sink) {
  const int64_t first = experts.layout.FirstUnit(id.stripe);
  const int64_t valid = experts.layout.ValidUnits(id.stripe);
  const int64_t hidden = experts.stripe.hidden;
  const int64_t element = DTypeBytes(dtype_);
  kernels::PackStripeArgs args{
      .shape = experts.stripe,
      .valid_units = valid,
      .gate = expert.gate.InPlace(first, 0, dtype_),
      .up = expert.up.InPlace(first, 0, dtype_),
      .down = expert.down.InPlace(0, first, dtype_),
      .down_stride = expert.down.cols,
      .packed = sink.BeginStripe(id, worker),
  };
  std::byte* scratch = nullptr;
  if (args.gate == nullptr || args.up == nullptr || args.down == nullptr) {
    scratch = Scratch(worker, 3 * valid * hidden * element);
  }
  if (args.gate == nullptr) {
    CopyWeights(expert.gate, first, valid, 0, hidden, dtype_, scratch, hidden);
    args.gate = scratch;
    scratch += valid * hidden * element;
  }
  if (args.up == nullptr) {
    CopyWeights(expert.up, first, valid, 0, hidden, dtype_, scratch, hidden);
    args.up = scratch;
    scratch += valid * hidden * element;
  }
  if (args.down == nullptr) {
    CopyWeights(expert.down, 0, hidden, first, valid, dtype_, scratch, valid);
    args.down = scratch;
    args.down_stride = valid;
  }
  kernels_.pack_stripe(args);
  return sink.FinishStripe(id, worker);
}

}  // namespace moesaic
