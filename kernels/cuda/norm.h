#pragma once

#include <cuda_runtime_api.h>

#include "kernels/norm.h"

namespace moesaic::kernels::cuda {

// RmsNormArgs on the GPU, queued on stream.native (a cudaStream_t); pointers are device pointers.
// Returns the launch's error; invalid-value for a shape that no launch can cover.
cudaError_t RmsNorm(const RmsNormArgs& args, Stream& stream);

}  // namespace moesaic::kernels::cuda
