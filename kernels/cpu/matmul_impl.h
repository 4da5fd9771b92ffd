// Microkernels of a matrix product over an instruction set's Vec. Included inside that set's
// namespace, after its Vec and kTileRows (the rows whose sums fit its registers).

struct Float32Step {
  static constexpr int64_t kABytes = sizeof(float);
  template <int R, int V>
  MOESAIC_SIMD void Run(const char* a, int64_t a_stride, const float* panel, Vec (&acc)[R][V]) {
    Vec b[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) b[v] = Load(panel + v * kVectorColumns);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const Vec x = Broadcast(*reinterpret_cast<const float*>(a + r * a_stride));
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) acc[r][v] = MulAdd(x, b[v], acc[r][v]);
    }
  }
};

// A pair of bfloat16 weights per column, widened in registers; `a` is float32.
struct WidenedBFloat16Step {
  static constexpr int64_t kABytes = 2 * sizeof(float);
  template <int R, int V>
  MOESAIC_SIMD void Run(const char* a, int64_t a_stride, const float* panel, Vec (&acc)[R][V]) {
    // One widened vector at a time: more would not fit the registers beside the sums, so the
    // compiler must not load the next one early.
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      const Vec even = WidenEven(panel + v * kVectorColumns);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const float* x = reinterpret_cast<const float*>(a + r * a_stride);
        acc[r][v] = MulAdd(Broadcast(x[0]), even, acc[r][v]);
      }
      asm volatile("" : : : "memory");
      const Vec odd = WidenOdd(panel + v * kVectorColumns);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const float* x = reinterpret_cast<const float*>(a + r * a_stride);
        acc[r][v] = MulAdd(Broadcast(x[1]), odd, acc[r][v]);
      }
      asm volatile("" : : : "memory");
    }
  }
};

template <class Step, int R, int V>
void Tile(const TileArgs& args) {
  Vec acc[R][V];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      acc[r][v] = args.resume ? Load(args.acc + (r * V + v) * kVectorColumns) : Broadcast(0.0f);
    }
  }
  const char* a = static_cast<const char*>(args.a);
  const int64_t a_stride = args.a_stride_bytes;
  const float* panel = static_cast<const float*>(args.panel);
  const char* prefetch = static_cast<const char*>(args.prefetch);
  // The lines are spread evenly: a burst would hold up the loads of the panel itself.
  constexpr int64_t kBlockSteps = 2;
  const int64_t blocks = (args.steps + kBlockSteps - 1) / kBlockSteps;
  const int64_t lines_per_block = blocks == 0 ? 0 : (args.prefetch_lines + blocks - 1) / blocks;
  int64_t lines_left = args.prefetch_lines;
  for (int64_t left = args.steps; left > 0; left -= kBlockSteps) {
    const int64_t lines = lines_left < lines_per_block ? lines_left : lines_per_block;
    for (int64_t line = 0; line < lines; ++line) {
      __builtin_prefetch(prefetch, 0, 2);
      prefetch += 64;
    }
    lines_left -= lines;
    const int64_t steps = left < kBlockSteps ? left : kBlockSteps;
    for (int64_t step = 0; step < steps; ++step) {
      Step::template Run<R, V>(a, a_stride, panel, acc);
      a += Step::kABytes;
      panel += V * kVectorColumns;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) Store(args.acc + (r * V + v) * kVectorColumns, acc[r][v]);
  }
}

template <class Step, int V, int R = 1>
constexpr void FillTiles(TileFn (&tiles)[kMaxTileRows]) {
  tiles[R - 1] = &Tile<Step, R, V>;
  if constexpr (R < kTileRows) FillTiles<Step, V, R + 1>(tiles);
}

static void Widen(const uint16_t* bfloat16, int64_t count, float* output) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16[i]) << 16;
    __builtin_memcpy(output + i, &bits, sizeof(bits));
  }
}

static void Narrow(const float* input, int64_t count, uint16_t* bfloat16) {
  for (int64_t i = 0; i < count; ++i) bfloat16[i] = RoundToBFloat16(input[i]);
}

static void SiluMul(const float* gate, const float* up, float* output) {
  Store(output, Mul(Silu(Load(gate)), Load(up)));
}

static void AddWeighted(const float* input, float weight, int64_t count, float* output) {
  const Vec factor = Broadcast(weight);
  int64_t i = 0;
  for (; i + kVectorColumns <= count; i += kVectorColumns) {
    Store(output + i, MulAdd(factor, Load(input + i), Load(output + i)));
  }
  if (i < count) {
    float in[kVectorColumns] = {};
    float out[kVectorColumns] = {};
    for (int64_t j = i; j < count; ++j) {
      in[j - i] = input[j];
      out[j - i] = output[j];
    }
    Store(out, MulAdd(factor, Load(in), Load(out)));
    for (int64_t j = i; j < count; ++j) output[j] = out[j - i];
  }
}

template <class BFloat16Step>
constexpr MatmulMicrokernels MakeMicrokernels(bool widened_bfloat16) {
  MatmulMicrokernels kernels;
  kernels.max_rows = kTileRows;
  kernels.widened_bfloat16 = widened_bfloat16;
  FillTiles<Float32Step, 1>(kernels.float32[0]);
  FillTiles<Float32Step, 2>(kernels.float32[1]);
  FillTiles<BFloat16Step, 1>(kernels.bfloat16[0]);
  FillTiles<BFloat16Step, 2>(kernels.bfloat16[1]);
  kernels.widen = &Widen;
  kernels.narrow = &Narrow;
  kernels.silu_mul = &SiluMul;
  kernels.add_weighted = &AddWeighted;
  return kernels;
}
