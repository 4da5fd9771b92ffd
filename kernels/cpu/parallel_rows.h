#pragma once

#include <cstdint>

#include "base/stream.h"

namespace moesaic::kernels {

// Calls body(args, begin, end) over ranges that cover [0, rows): in the calling thread when the
// whole is too little work to be worth waking others (decode's small operators), else on the pool.
// `row_elements` is the number of values one row touches.
void ForEachRowRange(Stream& stream,
                     int64_t rows,
                     int64_t row_elements,
                     void (*body)(const void* args, int64_t begin, int64_t end),
                     const void* args);

}  // namespace moesaic::kernels
