#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/stream.h"
#include "kernels/kernel_table.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace moesaic {

// The dtype that weights and activations get: `auto` keeps bfloat16 and float32, and widens float16
// to float32, which holds it exactly.
DType ResolveDType(DTypeChoice choice, DType checkpoint_dtype);

// Packs the weights of options.path (or random ones) for `config`, with a progress line on standard
// error. NotFound or InvalidArgument naming the tensor when the checkpoint does not hold what
// config.json promises; ResourceExhausted when the packed model and its rotary embedding are larger
// than this machine's memory.
absl::StatusOr<ModelWeights> LoadWeights(const ModelOptions& options,
                                         const ModelConfig& config,
                                         const kernels::KernelTable& kernels,
                                         Stream stream);

}  // namespace moesaic
