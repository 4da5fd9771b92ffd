#include <algorithm>

#include "base/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/partition.h"

namespace moesaic::kernels {
namespace {

void RunLinear(const MatmulMicrokernels& kernels, const LinearArgs& args, Stream& stream) {
  const PackedMatrix matrix = {args.dtype, args.shape.out_features, args.shape.in_features};
  const RowSource rows = {static_cast<const std::byte*>(args.input),
                          args.shape.in_features * static_cast<int64_t>(DTypeBytes(args.dtype)),
                          nullptr, args.rows};
  const auto store = [&](const float* tile, int64_t first_row, int64_t rows, int64_t panel) {
    const int64_t first = panel * kPanelColumns;
    const int64_t columns = std::min(kPanelColumns, args.shape.out_features - first);
    const int64_t stride = matrix.vectors(panel) * kVectorColumns;
    for (int64_t r = 0; r < rows; ++r) {
      const float* sums = tile + r * stride;
      float* output = args.output + (first_row + r) * args.shape.out_features + first;
      for (int64_t c = 0; c < columns; ++c) {
        const float value = args.bias == nullptr ? sums[c] : sums[c] + args.bias[first + c];
        output[c] = args.accumulate ? output[c] + value : value;
      }
    }
  };
  const Factoring tasks(matrix.panels(), stream.pool->num_threads());
  stream.pool->ParallelFor(tasks.num_tasks(), [&](int64_t task, int) {
    const TaskRange range = tasks.range(task);
    const PanelRange panels = {
        .matrix = &matrix, .segments = &args.weight, .begin = range.begin, .end = range.end};
    MultiplyPanels(kernels, panels, rows, {}, FromZero{}, store);
  });
}

}  // namespace

#define MOESAIC_DEFINE_LINEAR(isa)                           \
  void isa::Linear(const LinearArgs& args, Stream& stream) { \
    RunLinear(isa::kMatmul, args, stream);                   \
  }
MOESAIC_DEFINE_LINEAR(portable)
#if defined(MOESAIC_X86_KERNELS)
MOESAIC_DEFINE_LINEAR(avx2)
MOESAIC_DEFINE_LINEAR(avx512)
MOESAIC_DEFINE_LINEAR(avx512_bf16)
#endif
#undef MOESAIC_DEFINE_LINEAR

}  // namespace moesaic::kernels
