#include <algorithm>
#include <cmath>

#include "base/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/partition.h"

namespace moesaic::kernels {
namespace {

// Up to this many rows weights come from memory faster in one run per expert than the sums of whole
// experts, kept beside each other until they are added, cost.
constexpr int64_t kMaxWholeRows = 64;

// Part of the first phase: consecutive panels of a work's gate and up projections, over its
// stripes, or the whole work.
struct Task {
  int32_t work;
  int32_t first_panel;
  int32_t num_panels;  // 0: the whole work
};

// What one call keeps in the caller's workspace.
struct Workspace {
  std::byte* hidden;  // [entries, hidden_stride bytes]: the activation of each routed row
  int64_t hidden_stride_bytes;
  float* sums;        // [entries, hidden] of whole works, up to kMaxWholeRows rows
  ExpertWork* works;  // when the caller names none
  Task* tasks;
  size_t bytes;
};

Workspace LayOut(const StripeShape& shape,
                 int64_t stripes,
                 int64_t num_experts,
                 int64_t rows,
                 int64_t entries,
                 std::byte* base) {
  const int64_t active = std::min(num_experts, entries);
  const int64_t panels = StripeLayout(shape).up.panels() * stripes;
  Workspace workspace;
  // A row more than a power of two apart from the next keeps the rows of a tile in different sets
  // of the cache.
  workspace.hidden_stride_bytes =
      stripes * shape.units * static_cast<int64_t>(DTypeBytes(shape.dtype)) + 64;
  int64_t offset = 0;
  const auto take = [&](int64_t bytes) {
    std::byte* const start = base == nullptr ? nullptr : base + offset;
    offset += RoundUp<int64_t>(bytes, 64);
    return start;
  };
  const int64_t whole_entries = rows == 0 ? 0 : CeilDiv(entries, rows) * kMaxWholeRows;
  workspace.works = reinterpret_cast<ExpertWork*>(take(active * sizeof(ExpertWork)));
  workspace.tasks = reinterpret_cast<Task*>(take(active * panels * sizeof(Task)));
  workspace.sums = reinterpret_cast<float*>(
      take(std::min(entries, whole_entries) * shape.hidden * sizeof(float)));
  workspace.hidden = take(entries * workspace.hidden_stride_bytes);
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

// One call, in two phases. Few rows: the first runs most works as a whole, each in one thread that
// reads an expert's stripes from end to end, and keeps their sums. The works that remain, so that
// all threads finish together, and all of them when there are many rows, are cut: their up
// projections in the first phase, their down projections in the second. That one goes by output
// columns: a column has one worker, which adds the works in their order and so needs no partial
// sums.
class ExpertFfnCall {
 public:
  ExpertFfnCall(const MatmulMicrokernels& kernels, const ExpertFfnArgs& args, int num_threads)
      : kernels_(kernels),
        args_(args),
        stripe_(StripeLayout(args.shape)),
        element_bytes_(static_cast<int64_t>(DTypeBytes(args.shape.dtype))),
        workspace_(
            LayOut(args.shape,
                   args.max_work_stripes > 0 ? args.max_work_stripes : args.stripes_per_expert,
                   args.routed.num_experts,
                   args.num_rows,
                   args.routed.offsets[args.routed.num_experts],
                   static_cast<std::byte*>(args.workspace))),
        works_(args.works),
        num_works_(args.num_works) {
    if (num_works_ < 0) ListWorks();
    PlanTasks(num_threads);
  }

  int64_t num_tasks() const { return num_tasks_; }

  void RunTask(int64_t index) const {
    const Task& task = workspace_.tasks[index];
    const ExpertWork& work = works_[task.work];
    if (task.num_panels == 0) {
      RunWhole(work);
    } else {
      RunUpPanels(work, {task.first_panel, task.first_panel + task.num_panels});
    }
  }

  // Columns of the second phase, in panels.
  int64_t num_down_panels() const { return needs_second_phase_ ? stripe_.down.panels() : 0; }

  void RunColumns(TaskRange panels) const {
    for (int64_t i = 0; i < num_works_; ++i) {
      const ExpertWork& work = works_[i];
      if (i < num_whole_ || work.num_stripes == 0) {
        if (work.add_to_output) AddSums(work, panels);
      } else {
        RunDownPanels(work, panels, i + 1 < num_works_ ? works_ + i + 1 : nullptr);
      }
    }
  }

 private:
  int64_t first_entry(const ExpertWork& work) const { return args_.routed.offsets[work.expert]; }
  int64_t rows_of(const ExpertWork& work) const {
    return args_.routed.offsets[work.expert + 1] - args_.routed.offsets[work.expert];
  }
  // The packed stripes of a work.
  const void* const* stripes(const ExpertWork& work) const {
    return args_.stripes + work.expert * args_.stripes_per_expert + work.first_stripe;
  }
  // Where a work's sums are: the caller's, or those of a whole work.
  float* sums(const ExpertWork& work) const {
    return work.sums != nullptr ? work.sums
                                : workspace_.sums + first_entry(work) * args_.shape.hidden;
  }

  PanelRange Up(const ExpertWork& work, int64_t stripe, TaskRange panels) const {
    return {.matrix = &stripe_.up,
            .segments = stripes(work) + stripe,
            .begin = panels.begin,
            .end = panels.end};
  }
  PanelRange Down(const ExpertWork& work, TaskRange panels) const {
    return {.matrix = &stripe_.down,
            .segments = stripes(work),
            .num_segments = work.num_stripes,
            .offset = stripe_.down_offset(),
            .begin = panels.begin,
            .end = panels.end};
  }
  RowSource Input(const ExpertWork& work) const {
    return {static_cast<const std::byte*>(args_.input), args_.shape.hidden * element_bytes_,
            args_.routed.rows + first_entry(work), rows_of(work)};
  }
  // The activations of a work's rows, from its stripe number `stripe` on.
  RowSource Hidden(const ExpertWork& work, int64_t stripe) const {
    return {workspace_.hidden + first_entry(work) * workspace_.hidden_stride_bytes +
                stripe * args_.shape.units * element_bytes_,
            workspace_.hidden_stride_bytes, nullptr, rows_of(work)};
  }

  void ListWorks() {
    num_works_ = 0;
    for (int64_t e = 0; e < args_.routed.num_experts; ++e) {
      if (args_.routed.offsets[e + 1] == args_.routed.offsets[e]) continue;
      workspace_.works[num_works_++] = {
          .expert = static_cast<int32_t>(e),
          .num_stripes = static_cast<int32_t>(args_.stripes_per_expert)};
    }
    works_ = workspace_.works;
  }

  void PlanTasks(int num_threads) {
    // As many works are cut as fill the time in which the threads finish their last whole one.
    const int64_t cut = num_threads == 1 ? 0 : 2 * num_threads;
    num_whole_ = args_.num_rows > kMaxWholeRows ? 0 : std::max<int64_t>(0, num_works_ - cut);
    needs_second_phase_ = num_whole_ < num_works_;
    for (int64_t i = 0; i < num_whole_; ++i) {
      needs_second_phase_ |= works_[i].add_to_output;
      if (works_[i].num_stripes > 0)
        workspace_.tasks[num_tasks_++] = {static_cast<int32_t>(i), 0, 0};
    }
    PlanUpTasks(num_threads);
  }

  // Tasks in the order of works that shrink towards the end; none crosses a work.
  void PlanUpTasks(int num_threads) {
    // Up to about this many rows a panel costs what reading it from memory costs.
    constexpr int64_t kMemoryBoundRows = 12;
    const auto panels_of = [&](const ExpertWork& work) {
      return stripe_.up.panels() * work.num_stripes;
    };
    const auto panel_cost = [&](const ExpertWork& work) {
      return std::max(kMemoryBoundRows, rows_of(work));
    };
    int64_t cost_left = 0;
    for (int64_t i = num_whole_; i < num_works_; ++i) {
      cost_left += panel_cost(works_[i]) * panels_of(works_[i]);
    }
    for (int64_t i = num_whole_; i < num_works_; ++i) {
      for (int64_t panel = 0; panel < panels_of(works_[i]);) {
        const int64_t share = cost_left / (2 * num_threads * panel_cost(works_[i]));
        const int64_t panels = std::clamp<int64_t>(share, 1, panels_of(works_[i]) - panel);
        workspace_.tasks[num_tasks_++] = {static_cast<int32_t>(i), static_cast<int32_t>(panel),
                                          static_cast<int32_t>(panels)};
        panel += panels;
        cost_left -= panels * panel_cost(works_[i]);
      }
    }
  }

  void RunWhole(const ExpertWork& work) const {
    for (int64_t s = 0; s < work.num_stripes; ++s) {
      RunUp(work, s, {0, stripe_.up.panels()});
      // One stripe at a time, its weights in the order in which they lie.
      ExpertWork stripe = work;
      stripe.first_stripe += static_cast<int32_t>(s);
      stripe.num_stripes = 1;
      MultiplyPanels(
          kernels_, Down(stripe, {0, stripe_.down.panels()}), Hidden(work, s), {},
          [&](float* tile, int64_t first_row, int64_t num_rows, int64_t p) {
            return LoadSums(stripe, first_row, num_rows, p, tile);
          },
          [&](const float* tile, int64_t first_row, int64_t num_rows, int64_t p) {
            StoreSums(tile, stripe, first_row, num_rows, p);
          });
    }
  }

  void RunUpPanels(const ExpertWork& work, TaskRange panels) const {
    const int64_t stripe_panels = stripe_.up.panels();
    while (panels.begin < panels.end) {
      const int64_t s = panels.begin / stripe_panels;
      const int64_t first = s * stripe_panels;
      const int64_t end = std::min(panels.end, first + stripe_panels);
      RunUp(work, s, {panels.begin - first, end - first});
      panels.begin = end;
    }
  }

  void RunUp(const ExpertWork& work, int64_t stripe, TaskRange panels) const {
    MultiplyPanels(kernels_, Up(work, stripe, panels), Input(work), {}, FromZero{},
                   [&](const float* tile, int64_t first_row, int64_t num_rows, int64_t p) {
                     StoreHidden(tile, first_entry(work) + first_row, num_rows, stripe, p);
                   });
  }

  void RunDownPanels(const ExpertWork& work, TaskRange panels, const ExpertWork* after) const {
    PrefetchTarget next;
    if (after != nullptr && after->num_stripes > 0) {
      next.data = Down(*after, panels).panel(panels.begin, 0);
      next.bytes = stripe_.down.panel_bytes();
    }
    MultiplyPanels(
        kernels_, Down(work, panels), Hidden(work, 0), next,
        [&](float* tile, int64_t first_row, int64_t num_rows, int64_t p) {
          return LoadSums(work, first_row, num_rows, p, tile);
        },
        [&](const float* tile, int64_t first_row, int64_t num_rows, int64_t p) {
          if (work.sums != nullptr) StoreSums(tile, work, first_row, num_rows, p);
          if (work.add_to_output) {
            AddToOutput(tile, stripe_.down.vectors(p) * kVectorColumns,
                        first_entry(work) + first_row, num_rows, p);
          }
        });
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

  // Output columns of a panel.
  int64_t Columns(int64_t panel) const {
    return std::min(kPanelColumns, args_.shape.hidden - panel * kPanelColumns);
  }

  // The sums that a work continues; false when it begins.
  bool LoadSums(const ExpertWork& work,
                int64_t first_row,
                int64_t num_rows,
                int64_t panel,
                float* tile) const {
    if (work.first_stripe == 0) return false;
    const int64_t stride = stripe_.down.vectors(panel) * kVectorColumns;
    const int64_t columns = Columns(panel);
    const float* from = sums(work) + first_row * args_.shape.hidden + panel * kPanelColumns;
    for (int64_t r = 0; r < num_rows; ++r) {
      float* to = tile + r * stride;
      std::memcpy(to, from + r * args_.shape.hidden, columns * sizeof(float));
      std::fill(to + columns, to + stride, 0.0f);
    }
    return true;
  }

  void StoreSums(const float* tile,
                 const ExpertWork& work,
                 int64_t first_row,
                 int64_t num_rows,
                 int64_t panel) const {
    const int64_t stride = stripe_.down.vectors(panel) * kVectorColumns;
    float* to = sums(work) + first_row * args_.shape.hidden + panel * kPanelColumns;
    for (int64_t r = 0; r < num_rows; ++r) {
      std::memcpy(to + r * args_.shape.hidden, tile + r * stride, Columns(panel) * sizeof(float));
    }
  }

  void AddSums(const ExpertWork& work, TaskRange panels) const {
    const int64_t begin = panels.begin * kPanelColumns;
    const int64_t columns = std::min(panels.end * kPanelColumns, args_.shape.hidden) - begin;
    for (int64_t r = 0; r < rows_of(work); ++r) {
      const int64_t entry = first_entry(work) + r;
      kernels_.add_weighted(sums(work) + r * args_.shape.hidden + begin,
                            args_.routed.weights[entry], columns,
                            args_.output + args_.routed.rows[entry] * args_.shape.hidden + begin);
    }
  }

  void AddToOutput(const float* tile,
                   int64_t stride,
                   int64_t first_entry,
                   int64_t num_rows,
                   int64_t panel) const {
    for (int64_t r = 0; r < num_rows; ++r) {
      const int64_t entry = first_entry + r;
      kernels_.add_weighted(
          tile + r * stride, args_.routed.weights[entry], Columns(panel),
          args_.output + args_.routed.rows[entry] * args_.shape.hidden + panel * kPanelColumns);
    }
  }

  const MatmulMicrokernels& kernels_;
  const ExpertFfnArgs& args_;
  const PackedStripe stripe_;
  const int64_t element_bytes_;
  const Workspace workspace_;
  const ExpertWork* works_;
  int64_t num_works_;
  int64_t num_whole_ = 0;  // the first of works_
  bool needs_second_phase_ = false;
  int64_t num_tasks_ = 0;
};

void RunExpertFfn(const MatmulMicrokernels& kernels, const ExpertFfnArgs& args, Stream& stream) {
  ThreadPool& pool = *stream.pool;
  ExpertFfnCall call(kernels, args, pool.num_threads());
  pool.ParallelFor(call.num_tasks(), [&](int64_t task, int) { call.RunTask(task); });
  const Factoring columns(call.num_down_panels(), pool.num_threads());
  pool.ParallelFor(columns.num_tasks(),
                   [&](int64_t task, int) { call.RunColumns(columns.range(task)); });
}

}  // namespace

size_t cpu::ExpertFfnWorkspaceBytes(const StripeShape& shape,
                                    int64_t max_work_stripes,
                                    int64_t num_experts,
                                    int64_t max_rows,
                                    int64_t max_entries,
                                    int /*num_threads*/) {
  return LayOut(shape, max_work_stripes, num_experts, max_rows, max_entries, nullptr).bytes;
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
