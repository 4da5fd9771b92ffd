#pragma once

// Instruction sets that the CPU kernels are written for.

#include <string_view>

#include "absl/status/statusor.h"

namespace moesaic {

// In ascending order of capability: each includes the ones before it.
enum class Isa { kPortable, kAvx2, kAvx512, kAvx512Bf16 };

std::string_view IsaName(Isa isa);

// The best instruction set of this machine (CPUID, and the operating system saves its registers).
Isa DetectIsa();

// "auto" (DetectIsa), "portable", "avx2", "avx512" or "avx512_bf16". InvalidArgument for any other
// name; FailedPrecondition when this machine lacks it.
absl::StatusOr<Isa> ParseIsa(std::string_view name);

}  // namespace moesaic
