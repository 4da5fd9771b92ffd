#pragma once

// A vector of 16 floats, written once for each instruction set (simd_portable.h, simd_avx2.h,
// simd_avx512.h) and included inside that set's namespace: code compiled with an instruction set's
// flags shares no inline function with the rest of the program, or the linker could pick a copy
// that a lesser machine cannot run.
//
//   Broadcast(x)  Load(p)  Store(p, x)     p needs no alignment
//   Add  Sub  Mul  Div                     lane by lane
//   MulAdd(a, b, c)                        a * b + c: one rounding where the set has FMA, else two
//   SelectGreater(a, b, yes, no)           a > b ? yes : no
//   Round(x)                               to the nearest integer, ties to even; |x| < 2^22
//   Pow2(x)                                2^x for an integral x in [-126, 127]
//   WidenEven(p)  WidenOdd(p)              16 pairs of bfloat16: the first, or second, of each
//   ReduceAdd(x)  ReduceMax(x)             over the lanes, in an order of its own

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MOESAIC_SIMD [[maybe_unused]] static inline __attribute__((always_inline))
