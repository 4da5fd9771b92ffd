#include "kernels/cpu/parallel_rows.h"

#include <algorithm>

#include "base/thread_pool.h"

namespace moesaic::kernels {
namespace {

// About 5 us of work for one core, several times what handing it to another costs.
constexpr int64_t kRangeElements = 16384;

}  // namespace

void ForEachRowRange(Stream& stream,
                     int64_t rows,
                     int64_t row_elements,
                     void (*body)(const void* args, int64_t begin, int64_t end),
                     const void* args) {
  const int64_t range_rows =
      std::max<int64_t>(1, kRangeElements / std::max<int64_t>(1, row_elements));
  if (stream.pool == nullptr || rows < 2 * range_rows) {
    body(args, 0, rows);
    return;
  }
  stream.pool->ParallelFor((rows + range_rows - 1) / range_rows, [&](int64_t range, int) {
    const int64_t begin = range * range_rows;
    body(args, begin, std::min(rows, begin + range_rows));
  });
}

}  // namespace moesaic::kernels
