#include <cuda_bf16.h>

#include "kernels/cuda/norm.h"

namespace moesaic::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;

__device__ void Store(float* output, float value) { *output = value; }
__device__ void Store(__nv_bfloat16* output, float value) { *output = __float2bfloat16_rn(value); }

// One block a row. The order of the sum depends on `dim` alone: each thread's strided elements
// ascending, then a butterfly within warps, then warps ascending.
template <typename Output>
__global__ void RmsNormKernel(RmsNormArgs args) {
  __shared__ float warp_sums[kThreads / kWarp];
  const int64_t row = blockIdx.x;
  const int64_t source = args.row_index == nullptr ? row : args.row_index[row];
  const float* input = args.input + source * args.dim;
  Output* output = static_cast<Output*>(args.output) + row * args.dim;

  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < args.dim; i += kThreads) sum += input[i] * input[i];
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % kWarp == 0) warp_sums[threadIdx.x / kWarp] = sum;
  __syncthreads();
  float total = 0.0f;
  for (float warp_sum : warp_sums) total += warp_sum;

  const float scale = rsqrtf(total / static_cast<float>(args.dim) + args.eps);
  for (int64_t i = threadIdx.x; i < args.dim; i += kThreads) {
    Store(output + i, input[i] * scale * args.weight[i]);
  }
}

}  // namespace

cudaError_t RmsNorm(const RmsNormArgs& args, Stream& stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.rows < 0 || args.rows > INT32_MAX || args.dim <= 0) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(args.rows));
  auto* native = static_cast<cudaStream_t>(stream.native);
  switch (args.output_dtype) {
    case DType::kFloat32:
      RmsNormKernel<float><<<grid, kThreads, 0, native>>>(args);
      break;
    case DType::kBFloat16:
      RmsNormKernel<__nv_bfloat16><<<grid, kThreads, 0, native>>>(args);
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaGetLastError();
}

}  // namespace moesaic::kernels::cuda
