// Functions of a Vec. Included inside an instruction set's namespace after its Vec, so it has no
// include guard and includes nothing.

// e^x within 2 ulp; 0 below the smallest normal result, infinity above the largest; NaN stays.
MOESAIC_SIMD Vec Exp(Vec x) {
  const Vec lowest = Broadcast(-87.3365402f);
  const Vec highest = Broadcast(88.7228394f);
  Vec clamped = SelectGreater(lowest, x, lowest, x);
  clamped = SelectGreater(clamped, highest, highest, clamped);
  // x = n ln 2 + r, with ln 2 in two parts so that n times the first is exact.
  const Vec n = Round(Mul(clamped, Broadcast(1.44269504f)));
  Vec r = MulAdd(n, Broadcast(-0.693359375f), clamped);
  r = MulAdd(n, Broadcast(2.12194440e-4f), r);
  // Minimax polynomial of (e^r - 1 - r) / r^2 on [-ln2/2, ln2/2] (Cephes expf).
  Vec p = Broadcast(1.9875691500e-4f);
  p = MulAdd(p, r, Broadcast(1.3981999507e-3f));
  p = MulAdd(p, r, Broadcast(8.3334519073e-3f));
  p = MulAdd(p, r, Broadcast(4.1665795894e-2f));
  p = MulAdd(p, r, Broadcast(1.6666665459e-1f));
  p = MulAdd(p, r, Broadcast(5.0000001201e-1f));
  p = MulAdd(p, Mul(r, r), Add(r, Broadcast(1.0f)));
  // n reaches 128, beyond a float's exponent, so 2^n is applied in two factors.
  const Vec half = Round(Mul(n, Broadcast(0.5f)));
  Vec result = Mul(Mul(p, Pow2(half)), Pow2(Sub(n, half)));
  result = SelectGreater(lowest, x, Broadcast(0.0f), result);
  return SelectGreater(x, highest, Broadcast(__builtin_inff()), result);
}

MOESAIC_SIMD Vec Silu(Vec x) { return Div(x, Add(Broadcast(1.0f), Exp(Sub(Broadcast(0.0f), x)))); }

// Rounds to nearest, ties to even; NaN stays NaN.
MOESAIC_SIMD uint16_t RoundToBFloat16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
