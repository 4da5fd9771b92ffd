#include "memory/activation_replay.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "base/str_cat.h"

namespace moesaic {
namespace {

// What a segment of the pool holds: segment `index` of `tensor`.
struct Label {
  int32_t tensor = -1;
  int64_t index = 0;

  bool operator==(const Label&) const = default;
};

class Replay {
 public:
  Replay(const ActivationGraph& graph, const ActivationPlan& plan) : graph_(graph), plan_(plan) {
    segment_ = plan.peak_bytes;
    for (const int64_t offset : plan.offsets) Divide(offset);
    for (const ActivationTensor& tensor : graph.tensors) Divide(tensor.bytes);
    for (const ActivationOperator& op : graph.operators) {
      for (const auto* accesses : {&op.reads, &op.writes}) {
        for (const TensorAccess& access : *accesses) {
          Divide(access.bytes);
          Divide(access.offset);
          for (const int64_t stride : access.strides) Divide(stride);
        }
      }
    }
    segment_ = std::max<int64_t>(1, segment_);
    pool_.resize(plan.peak_bytes / segment_);
    writer_.resize(pool_.size());
  }

  absl::Status Run() {
    for (size_t t = 0; t < graph_.tensors.size(); ++t) {
      if (graph_.tensors[t].bytes < 0 || plan_.offsets[t] < 0 ||
          plan_.offsets[t] + graph_.tensors[t].bytes > plan_.peak_bytes) {
        return absl::InvalidArgumentError(StrCat(graph_.tensors[t].name, " is outside the pool"));
      }
      if (graph_.tensors[t].input) Write(Whole(t));
    }
    for (const ActivationOperator& op : graph_.operators) {
      absl::Status status = RunOperator(op);
      if (!status.ok()) return status;
    }
    for (size_t t = 0; t < graph_.tensors.size(); ++t) {
      if (graph_.tensors[t].output && !Holds(Whole(t))) return Lost("the end", t);
    }
    return absl::OkStatus();
  }

 private:
  struct Range {
    int32_t tensor;
    int64_t begin;  // segments of the tensor
    int64_t end;
  };

  void Divide(int64_t value) { segment_ = std::gcd(segment_, value); }
  Range Whole(int32_t tensor) const { return {tensor, 0, graph_.tensors[tensor].bytes / segment_}; }
  int64_t Place(int32_t tensor) const { return plan_.offsets[tensor] / segment_; }

  Range At(const TensorAccess& access, const std::vector<int64_t>& point) const {
    int64_t begin = access.offset;
    for (size_t d = 0; d < point.size(); ++d) begin += access.strides[d] * point[d];
    const int64_t bytes = graph_.tensors[access.tensor].bytes;
    return {access.tensor, std::clamp<int64_t>(begin, 0, bytes) / segment_,
            std::clamp<int64_t>(begin + access.bytes, 0, bytes) / segment_};
  }

  bool Holds(const Range& range) const {
    for (int64_t s = range.begin; s < range.end; ++s) {
      if (pool_[Place(range.tensor) + s] != Label{range.tensor, s}) return false;
    }
    return true;
  }
  void Write(const Range& range) {
    for (int64_t s = range.begin; s < range.end; ++s) {
      pool_[Place(range.tensor) + s] = {range.tensor, s};
    }
  }
  absl::Status Lost(const std::string& where, int32_t tensor) const {
    return absl::FailedPreconditionError(
        StrCat(where, " reads ", graph_.tensors[tensor].name, " where it is overwritten"));
  }

  template <typename Body>
  absl::Status ForEachPoint(const ActivationOperator& op, const Body& body) {
    std::vector<int64_t> point(op.domain.size());
    for (const int64_t extent : op.domain) {
      if (extent <= 0) return absl::OkStatus();
    }
    for (;;) {
      int64_t item = 0;  // number of the parallel part of the point
      for (int32_t d = 0; d < op.parallel_dims; ++d) item = item * op.domain[d] + point[d];
      absl::Status status = body(point, item);
      if (!status.ok()) return status;
      int d = static_cast<int>(point.size()) - 1;
      while (d >= 0 && ++point[d] == op.domain[d]) point[d--] = 0;
      if (d < 0) return absl::OkStatus();
    }
  }

  // No point may touch what another, that may run at any time before or after it, writes.
  absl::Status CheckAnyOrder(const ActivationOperator& op) {
    std::fill(writer_.begin(), writer_.end(), -1);
    absl::Status status =
        ForEachPoint(op, [&](const std::vector<int64_t>& point, int64_t item) -> absl::Status {
          for (const TensorAccess& access : op.writes) {
            const Range range = At(access, point);
            for (int64_t s = range.begin; s < range.end; ++s) {
              int64_t& writer = writer_[Place(range.tensor) + s];
              if (writer >= 0 && writer != item) return Lost(op.name, range.tensor);
              writer = item;
            }
          }
          return absl::OkStatus();
        });
    if (!status.ok()) return status;
    return ForEachPoint(op, [&](const std::vector<int64_t>& point, int64_t item) -> absl::Status {
      for (const TensorAccess& access : op.reads) {
        const Range range = At(access, point);
        for (int64_t s = range.begin; s < range.end; ++s) {
          const int64_t writer = writer_[Place(range.tensor) + s];
          if (writer >= 0 && writer != item) return Lost(op.name, range.tensor);
        }
      }
      return absl::OkStatus();
    });
  }

  absl::Status RunOperator(const ActivationOperator& op) {
    for (const int32_t tensor : op.workspace) Write(Whole(tensor));
    if (op.parallel_dims > 0) {
      absl::Status status = CheckAnyOrder(op);
      if (!status.ok()) return status;
    }
    absl::Status status =
        ForEachPoint(op, [&](const std::vector<int64_t>& point, int64_t) -> absl::Status {
          for (const TensorAccess& access : op.reads) {
            if (!Holds(At(access, point))) return Lost(op.name, access.tensor);
          }
          for (const TensorAccess& access : op.writes) Write(At(access, point));
          return absl::OkStatus();
        });
    if (!status.ok()) return status;
    for (const int32_t tensor : op.workspace) {
      if (!Holds(Whole(tensor))) return Lost(op.name, tensor);
    }
    return absl::OkStatus();
  }

  const ActivationGraph& graph_;
  const ActivationPlan& plan_;
  int64_t segment_ = 0;
  std::vector<Label> pool_;
  std::vector<int64_t> writer_;
};

}  // namespace

absl::Status ReplayAccesses(const ActivationGraph& graph, const ActivationPlan& plan) {
  return Replay(graph, plan).Run();
}

}  // namespace moesaic
