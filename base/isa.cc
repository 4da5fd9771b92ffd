#include "base/isa.h"

#include "base/str_cat.h"

namespace moesaic {

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "unknown";
}

Isa DetectIsa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::kPortable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx2;
  }
  return __builtin_cpu_supports("avx512bf16") ? Isa::kAvx512Bf16 : Isa::kAvx512;
#else
  return Isa::kPortable;
#endif
}

absl::StatusOr<Isa> ParseIsa(std::string_view name) {
  const Isa best = DetectIsa();
  if (name == "auto") return best;
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (name != IsaName(isa)) continue;
    if (isa > best) {
      return absl::FailedPreconditionError(
          StrCat("isa: this machine has no ", name, "; the best it has is ", IsaName(best)));
    }
    return isa;
  }
  return absl::InvalidArgumentError(
      StrCat("isa: '", name, "' is none of auto, portable, avx2, avx512, avx512_bf16"));
}

}  // namespace moesaic
