#include <algorithm>
#include <cmath>

#include "base/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/partition.h"

namespace moesaic::kernels {
namespace {

// Consecutive panels of one expert's gate and up projections, over its stripes.
struct UpTask {
  int32_t expert;
  int32_t first_panel;
  int32_t num_panels;
};

// What one call keeps in the caller's workspace.
struct Workspace {
  std::byte* hidden;  // [entries, hidden_stride bytes]: the activation of each routed row
  int64_t hidden_stride_bytes;
  int32_t* active;  // experts that have rows, ascending
  UpTask* tasks;
  size_t bytes;
};

Workspace LayOut(const StripeShape& shape,
                 int64_t stripes_per_expert,
                 int64_t num_experts,
                 int64_t entries,
                 std::byte* base) {
  const int64_t active = std::min(num_experts, entries);
  const int64_t panels = StripeLayout(shape).up.panels() * stripes_per_expert;
  Workspace workspace;
  // A row more than a power of two apart from the next keeps the rows of a tile in different sets
  // of the cache.
  workspace.hidden_stride_bytes =
      stripes_per_expert * shape.units * static_cast<int64_t>(DTypeBytes(shape.dtype)) + 64;
  int64_t offset = 0;
  const auto take = [&](int64_t bytes) {
    std::byte* const start = base == nullptr ? nullptr : base + offset;
    offset += RoundUp<int64_t>(bytes, 64);
    return start;
  };
  workspace.hidden = take(entries * workspace.hidden_stride_bytes);
  workspace.active = reinterpret_cast<int32_t*>(take(active * sizeof(int32_t)));
  workspace.tasks = reinterpret_cast<UpTask*>(take(active * panels * sizeof(UpTask)));
  workspace.bytes = static_cast<size_t>(offset);
  return workspace;
}

float Activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0f + std::exp(-x));
    case Activation::kGelu:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
    case Activation::kRelu:
      return x > 0.0f ? x : 0.0f;
  }
  return 0.0f;
}

// One call: the up projection of every routed row into `hidden`, then the down projection by output
// columns. A column has one worker, which adds the experts in ascending order and so needs no
// partial sums; weights are read once.
class ExpertFfnCall {
 public:
  ExpertFfnCall(const MatmulMicrokernels& kernels, const ExpertFfnArgs& args, int num_threads)
      : kernels_(kernels),
        args_(args),
        stripe_(StripeLayout(args.shape)),
        element_bytes_(static_cast<int64_t>(DTypeBytes(args.shape.dtype))),
        workspace_(LayOut(args.shape,
                          args.stripes_per_expert,
                          args.routed.num_experts,
                          args.routed.offsets[args.routed.num_experts],
                          static_cast<std::byte*>(args.workspace))) {
    for (int64_t e = 0; e < args.routed.num_experts; ++e) {
      if (rows_of(e) > 0) workspace_.active[num_active_++] = static_cast<int32_t>(e);
    }
    PlanUpTasks(num_threads);
  }

  int64_t num_up_tasks() const { return num_up_tasks_; }

  void RunUpTask(int64_t index) const {
    const UpTask& task = workspace_.tasks[index];
    const int64_t stripe_panels = stripe_.up.panels();
    const int64_t end = task.first_panel + task.num_panels;
    const int64_t first_entry = args_.routed.offsets[task.expert];
    const RowSource rows = {static_cast<const std::byte*>(args_.input),
                            args_.shape.hidden * element_bytes_, args_.routed.rows + first_entry,
                            rows_of(task.expert)};
    for (int64_t panel = task.first_panel; panel < end;) {
      const int64_t s = panel / stripe_panels;
      const int64_t begin = panel - s * stripe_panels;
      const PanelRange range = {&stripe_.up, packed(task.expert, s), begin,
                                std::min(stripe_panels, begin + end - panel)};
      MultiplyPanels(kernels_, range, rows, {},
                     [&](const float* tile, int64_t first_row, int64_t num_rows, int64_t p) {
                       StoreHidden(tile, first_entry + first_row, num_rows, s, p);
                     });
      panel += range.end - range.begin;
    }
  }

  int64_t num_down_panels() const { return stripe_.down.panels(); }

  void RunDownPanels(TaskRange panels) const {
    for (int64_t i = 0; i < num_active_; ++i) {
      const int64_t expert = workspace_.active[i];
      const int64_t first_entry = args_.routed.offsets[expert];
      for (int64_t s = 0; s < args_.stripes_per_expert; ++s) {
        const PanelRange range = down(expert, s, panels);
        PrefetchTarget next;
        const bool last_stripe = s + 1 == args_.stripes_per_expert;
        if (!last_stripe || i + 1 < num_active_) {
          const PanelRange after =
              last_stripe ? down(workspace_.active[i + 1], 0, panels) : down(expert, s + 1, panels);
          next.data = after.panel(after.begin);
          next.bytes = stripe_.down.panel_bytes();
        }
        const RowSource rows = {workspace_.hidden + first_entry * workspace_.hidden_stride_bytes +
                                    s * args_.shape.units * element_bytes_,
                                workspace_.hidden_stride_bytes, nullptr, rows_of(expert)};
        MultiplyPanels(kernels_, range, rows, next,
                       [&](const float* tile, int64_t first_row, int64_t num_rows, int64_t p) {
                         AddToOutput(tile, first_entry + first_row, num_rows, p);
                       });
      }
    }
  }

 private:
  int64_t rows_of(int64_t expert) const {
    return args_.routed.offsets[expert + 1] - args_.routed.offsets[expert];
  }
  const std::byte* packed(int64_t expert, int64_t stripe) const {
    return static_cast<const std::byte*>(args_.stripes[expert * args_.stripes_per_expert + stripe]);
  }
  PanelRange down(int64_t expert, int64_t stripe, TaskRange panels) const {
    return {&stripe_.down, packed(expert, stripe) + stripe_.down_offset(), panels.begin,
            panels.end};
  }

  // Tasks in ascending expert that shrink towards the end; none crosses an expert.
  void PlanUpTasks(int num_threads) {
    // Up to about this many rows a panel costs what reading it from memory costs.
    constexpr int64_t kMemoryBoundRows = 12;
    const int64_t expert_panels = stripe_.up.panels() * args_.stripes_per_expert;
    const auto panel_cost = [&](int64_t expert) {
      return std::max(kMemoryBoundRows, rows_of(expert));
    };
    int64_t cost_left = 0;
    for (int64_t i = 0; i < num_active_; ++i) {
      cost_left += panel_cost(workspace_.active[i]) * expert_panels;
    }
    for (int64_t i = 0; i < num_active_; ++i) {
      const int32_t expert = workspace_.active[i];
      for (int64_t panel = 0; panel < expert_panels;) {
        const int64_t share = cost_left / (2 * num_threads * panel_cost(expert));
        const int64_t panels = std::clamp<int64_t>(share, 1, expert_panels - panel);
        workspace_.tasks[num_up_tasks_++] = {expert, static_cast<int32_t>(panel),
                                             static_cast<int32_t>(panels)};
        panel += panels;
        cost_left -= panels * panel_cost(expert);
      }
    }
  }

  void StoreHidden(const float* tile,
                   int64_t first_entry,
                   int64_t num_rows,
                   int64_t stripe,
                   int64_t panel) const {
    const int64_t units = args_.shape.gated ? kVectorColumns : kPanelColumns;
    const int64_t first_unit = stripe * args_.shape.units + panel * units;
    for (int64_t r = 0; r < num_rows; ++r) {
      const float* sums = tile + r * kPanelColumns;
      float values[kPanelColumns];
      if (args_.shape.gated && args_.activation == Activation::kSilu) {
        kernels_.silu_mul(sums, sums + kVectorColumns, values);
      } else {
        for (int64_t u = 0; u < units; ++u) {
          values[u] = Activate(args_.activation, sums[u]);
          if (args_.shape.gated) values[u] *= sums[kVectorColumns + u];
        }
      }
      std::byte* output = workspace_.hidden + (first_entry + r) * workspace_.hidden_stride_bytes +
                          first_unit * element_bytes_;
      if (args_.shape.dtype == DType::kFloat32) {
        std::memcpy(output, values, units * sizeof(float));
      } else {
        kernels_.narrow(values, units, reinterpret_cast<uint16_t*>(output));
      }
    }
  }

  void AddToOutput(const float* tile, int64_t first_entry, int64_t num_rows, int64_t panel) const {
    const int64_t first = panel * kPanelColumns;
    const int64_t columns = std::min(kPanelColumns, args_.shape.hidden - first);
    const int64_t stride = stripe_.down.vectors(panel) * kVectorColumns;
    for (int64_t r = 0; r < num_rows; ++r) {
      const int64_t entry = first_entry + r;
      kernels_.add_weighted(tile + r * stride, args_.routed.weights[entry], columns,
                            args_.output + args_.routed.rows[entry] * args_.shape.hidden + first);
    }
  }

  const MatmulMicrokernels& kernels_;
  const ExpertFfnArgs& args_;
  const PackedStripe stripe_;
  const int64_t element_bytes_;
  const Workspace workspace_;
  int64_t num_active_ = 0;
  int64_t num_up_tasks_ = 0;
};

void RunExpertFfn(const MatmulMicrokernels& kernels, const ExpertFfnArgs& args, Stream& stream) {
  ThreadPool& pool = *stream.pool;
  const ExpertFfnCall call(kernels, args, pool.num_threads());
  pool.ParallelFor(call.num_up_tasks(), [&](int64_t task, int) { call.RunUpTask(task); });
  const Factoring tasks(call.num_down_panels(), pool.num_threads());
  pool.ParallelFor(tasks.num_tasks(),
                   [&](int64_t task, int) { call.RunDownPanels(tasks.range(task)); });
}

}  // namespace

size_t cpu::ExpertFfnWorkspaceBytes(const StripeShape& shape,
                                    int64_t stripes_per_expert,
                                    int64_t num_experts,
                                    int64_t /*max_rows*/,
                                    int64_t max_entries,
                                    int /*num_threads*/) {
  return LayOut(shape, stripes_per_expert, num_experts, max_entries, nullptr).bytes;
}

#define MOESAIC_DEFINE_EXPERT_FFN(isa)                             \
  void isa::ExpertFfn(const ExpertFfnArgs& args, Stream& stream) { \
    RunExpertFfn(isa::kMatmul, args, stream);                      \
  }
MOESAIC_DEFINE_EXPERT_FFN(portable)
#if defined(MOESAIC_X86_KERNELS)
MOESAIC_DEFINE_EXPERT_FFN(avx2)
MOESAIC_DEFINE_EXPERT_FFN(avx512)
MOESAIC_DEFINE_EXPERT_FFN(avx512_bf16)
#endif
#undef MOESAIC_DEFINE_EXPERT_FFN

}  // namespace moesaic::kernels
