#include "kernels/kernel_table.h"

#include "kernels/cpu/cpu_kernels.h"

namespace moesaic::kernels {
namespace {

KernelTable Portable() {
  KernelTable table;
  table.name = "portable";
  table.packed_linear_bytes = &cpu::PackedLinearBytes;
  table.pack_linear = &cpu::PackLinear;
  table.linear = &portable::Linear;
  table.embedding = &cpu::Embedding;
  table.stripe_order = "panel32";
  table.packed_stripe_bytes = &cpu::PackedStripeBytes;
  table.pack_stripe = &cpu::PackStripe;
  table.expert_ffn_workspace_bytes = &cpu::ExpertFfnWorkspaceBytes;
  table.expert_ffn = &portable::ExpertFfn;
  table.rms_norm = &portable::RmsNorm;
  table.qkv = &portable::Qkv;
  table.attention_workspace_bytes = &cpu::AttentionWorkspaceBytes;
  table.attention = &portable::Attention;
  table.gate_top_k = &portable::GateTopK;
  table.sigmoid = &portable::Sigmoid;
  table.arg_max = &portable::ArgMax;
  table.log_sum_exp = &portable::LogSumExp;
  table.exp_scaled = &portable::ExpScaled;
  return table;
}

// Each table starts from the one below it and replaces what its instruction set does better.
#if defined(MOESAIC_X86_KERNELS)
KernelTable Avx2() {
  KernelTable table = Portable();
  table.name = "avx2";
  table.linear = &avx2::Linear;
  table.expert_ffn = &avx2::ExpertFfn;
  table.rms_norm = &avx2::RmsNorm;
  table.qkv = &avx2::Qkv;
  table.attention = &avx2::Attention;
  table.gate_top_k = &avx2::GateTopK;
  table.sigmoid = &avx2::Sigmoid;
  table.arg_max = &avx2::ArgMax;
  table.log_sum_exp = &avx2::LogSumExp;
  table.exp_scaled = &avx2::ExpScaled;
  return table;
}

KernelTable Avx512() {
  KernelTable table = Avx2();
  table.name = "avx512";
  table.linear = &avx512::Linear;
  table.expert_ffn = &avx512::ExpertFfn;
  table.rms_norm = &avx512::RmsNorm;
  table.qkv = &avx512::Qkv;
  table.attention = &avx512::Attention;
  table.gate_top_k = &avx512::GateTopK;
  table.sigmoid = &avx512::Sigmoid;
  table.arg_max = &avx512::ArgMax;
  table.log_sum_exp = &avx512::LogSumExp;
  table.exp_scaled = &avx512::ExpScaled;
  return table;
}

KernelTable Avx512Bf16() {
  KernelTable table = Avx512();
  table.name = "avx512_bf16";
  table.linear = &avx512_bf16::Linear;
  table.expert_ffn = &avx512_bf16::ExpertFfn;
  table.attention = &avx512_bf16::Attention;
  return table;
}
#endif

}  // namespace

const KernelTable& CpuKernels(Isa isa) {
#if defined(MOESAIC_X86_KERNELS)
  static const KernelTable tables[] = {Portable(), Avx2(), Avx512(), Avx512Bf16()};
  return tables[static_cast<int>(isa)];
#else
  static const KernelTable table = Portable();
  static_cast<void>(isa);  // no other is supported
  return table;
#endif
}

}  // namespace moesaic::kernels
