#pragma once

#include "base/isa.h"
#include "kernels/attention.h"
#include "kernels/expert_ffn.h"
#include "kernels/gate.h"
#include "kernels/linear.h"
#include "kernels/logits.h"
#include "kernels/norm.h"
#include "kernels/qkv.h"

namespace moesaic::kernels {

// The operators of one backend and instruction set. The model calls through a table chosen at
// start, so that one binary serves every machine. Operators neither allocate nor fail: shapes were
// checked when the model was loaded.
struct KernelTable {
  const char* name = nullptr;

  PackedLinearBytesFn packed_linear_bytes = nullptr;
  PackLinearFn pack_linear = nullptr;
  LinearFn linear = nullptr;
  EmbeddingFn embedding = nullptr;

  RmsNormFn rms_norm = nullptr;
  QkvFn qkv = nullptr;
  AttentionWorkspaceBytesFn attention_workspace_bytes = nullptr;
  AttentionFn attention = nullptr;

  GateTopKFn gate_top_k = nullptr;
  SigmoidFn sigmoid = nullptr;

  // Names the order of the elements in a packed stripe: stripes packed under one name are read by
  // any table that gives the same. Changes when pack_stripe's result does.
  const char* stripe_order = nullptr;
  PackedStripeBytesFn packed_stripe_bytes = nullptr;
  PackStripeFn pack_stripe = nullptr;
  ExpertFfnWorkspaceBytesFn expert_ffn_workspace_bytes = nullptr;
  ExpertFfnFn expert_ffn = nullptr;

  ArgMaxFn arg_max = nullptr;
  LogSumExpFn log_sum_exp = nullptr;
  ExpScaledFn exp_scaled = nullptr;
};

// Never null; `isa` must be supported by this machine (ParseIsa).
const KernelTable& CpuKernels(Isa isa);

}  // namespace moesaic::kernels
