// Reductions over one row of logits. Included inside an instruction set's namespace, after its Vec.

// Sums stay in float32 for this many elements and are then added in float64, so that a vocabulary
// of any size keeps float32's precision.
constexpr int64_t kSumBlock = 1024;

MaxResult ArgMax(const float* logits, int64_t size) {
  Vec lanes = Broadcast(-__builtin_inff());
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) {
    const Vec x = Load(logits + i);
    lanes = SelectGreater(x, lanes, x, lanes);
  }
  float max = ReduceMax(lanes);
  for (; i < size; ++i) max = logits[i] > max ? logits[i] : max;
  for (i = 0; i < size; ++i) {
    if (logits[i] == max) return {max, static_cast<int32_t>(i)};
  }
  return {max, 0};  // nothing but NaN
}

// Stores exp((logits[i] - max_value) * scale) when `output` is not null; returns the sum.
static double SumOfExps(
    const float* logits, int64_t size, float max_value, float scale, float* output) {
  const Vec max = Broadcast(max_value);
  const Vec factor = Broadcast(scale);
  double total = 0.0;
  for (int64_t block = 0; block < size; block += kSumBlock) {
    const int64_t end = block + kSumBlock < size ? block + kSumBlock : size;
    Vec sum = Broadcast(0.0f);
    int64_t i = block;
    for (; i + 16 <= end; i += 16) {
      const Vec e = Exp(Mul(Sub(Load(logits + i), max), factor));
      if (output != nullptr) Store(output + i, e);
      sum = Add(sum, e);
    }
    if (i < end) {
      float tail[16];
      for (int64_t j = 0; j < 16; ++j) tail[j] = i + j < end ? logits[i + j] : -__builtin_inff();
      Store(tail, Exp(Mul(Sub(Load(tail), max), factor)));
      for (int64_t j = 0; i + j < end; ++j) {
        if (output != nullptr) output[i + j] = tail[j];
      }
      sum = Add(sum, Load(tail));
    }
    total += static_cast<double>(ReduceAdd(sum));
  }
  return total;
}

float LogSumExp(const float* logits, int64_t size, float max_value) {
  return max_value +
         static_cast<float>(__builtin_log(SumOfExps(logits, size, max_value, 1.0f, nullptr)));
}

float ExpScaled(const float* logits,
                int64_t size,
                float max_value,
                float inverse_temperature,
                float* probabilities) {
  return static_cast<float>(SumOfExps(logits, size, max_value, inverse_temperature, probabilities));
}
