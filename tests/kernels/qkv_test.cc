#include "kernels/qkv.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/thread_pool.h"
#include "kernels/attention.h"
#include "kernels/kernel_table.h"
#include "tests/kernels/tensor.h"

namespace moesaic::kernels {
namespace {

struct Shape {
  int64_t num_heads = 4;
  int64_t num_kv_heads = 2;
  int64_t head_dim = 64;
  int64_t rotary_dim = 64;
  QkNorm qk_norm = QkNorm::kPerHead;
  float clip = 0.0f;
  int64_t width() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
};

constexpr int64_t kPositions = 64;
constexpr int64_t kBlocks = 8;
constexpr float kEps = 1e-5f;

struct Inputs {
  explicit Inputs(const Shape& shape, int64_t rows) {
    std::mt19937 random(5);
    qkv = RandomNormal(random, rows * shape.width(), 2.0f);
    const int64_t weights = shape.qk_norm == QkNorm::kAllHeads ? shape.num_heads : 1;
    q_weight = RandomNormal(random, weights * shape.head_dim);
    k_weight = RandomNormal(random, weights * shape.head_dim);
    const int64_t half = shape.rotary_dim / 2;
    for (int64_t p = 0; p < kPositions; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(p) / std::pow(100.0, static_cast<double>(i) / half);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      positions.push_back(static_cast<int32_t>(r * 7 % kPositions));
      // Distinct slots, spread over the blocks.
      slots.push_back(r * 53 % (kBlocks * kKvBlockTokens));
    }
  }
  std::vector<float> qkv, q_weight, k_weight, cos, sin;
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
};

struct Outputs {
  Tensor q;
  Tensor k_cache;
  Tensor v_cache;
};

class QkvTest : public testing::TestWithParam<std::tuple<Isa, DType>> {
 protected:
  // Rows [first, first + rows) of the inputs.
  Outputs Run(const Shape& shape, const Inputs& inputs, int64_t first, int64_t rows, int threads) {
    const int64_t cache = kBlocks * shape.num_kv_heads * kKvBlockTokens * shape.head_dim;
    Outputs outputs = {Tensor(dtype_, rows * shape.num_heads * shape.head_dim),
                       Tensor(dtype_, cache), Tensor(dtype_, cache)};
    QkvArgs args;
    args.dtype = dtype_;
    args.rows = rows;
    args.num_heads = shape.num_heads;
    args.num_kv_heads = shape.num_kv_heads;
    args.head_dim = shape.head_dim;
    args.qkv = inputs.qkv.data() + first * shape.width();
    args.clip = shape.clip;
    args.qk_norm = shape.qk_norm;
    args.q_norm_weight = inputs.q_weight.data();
    args.k_norm_weight = inputs.k_weight.data();
    args.norm_eps = kEps;
    args.rotary_dim = shape.rotary_dim;
    args.cos_table = inputs.cos.data();
    args.sin_table = inputs.sin.data();
    args.positions = inputs.positions.data() + first;
    args.kv_slots = inputs.slots.data() + first;
    args.q_output = outputs.q.data();
    args.k_cache = outputs.k_cache.data();
    args.v_cache = outputs.v_cache.data();
    ThreadPool pool(threads);
    Stream stream;
    stream.pool = &pool;
    kernels_.qkv(args, stream);
    return outputs;
  }

  const KernelTable& kernels_ = CpuKernels(std::get<0>(GetParam()));
  const DType dtype_ = std::get<1>(GetParam());
};

// The definition in float64: `x` holds `heads` heads of one row; `norm_weight` null for v.
std::vector<double> Reference(const Shape& shape,
                              const Inputs& inputs,
                              const float* x,
                              int64_t heads,
                              const float* norm_weight,
                              int64_t row) {
  const int64_t dim = shape.head_dim;
  std::vector<double> y(x, x + heads * dim);
  const bool rotates = norm_weight != nullptr;
  if (norm_weight != nullptr && shape.qk_norm != QkNorm::kNone) {
    const int64_t span = shape.qk_norm == QkNorm::kPerHead ? dim : heads * dim;
    for (int64_t begin = 0; begin < heads * dim; begin += span) {
      double squares = 0;
      for (int64_t i = begin; i < begin + span; ++i) squares += y[i] * y[i];
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(span) + kEps);
      for (int64_t i = begin; i < begin + span; ++i) y[i] *= inverse * norm_weight[i - begin];
    }
  }
  if (shape.clip > 0) {
    for (double& value : y) value = std::clamp<double>(value, -shape.clip, shape.clip);
  }
  const int64_t half = shape.rotary_dim / 2;
  for (int64_t h = 0; rotates && h < heads; ++h) {
    for (int64_t i = 0; i < half; ++i) {
      const double cos = inputs.cos[inputs.positions[row] * half + i];
      const double sin = inputs.sin[inputs.positions[row] * half + i];
      const double first = y[h * dim + i];
      const double second = y[h * dim + half + i];
      y[h * dim + i] = first * cos - second * sin;
      y[h * dim + half + i] = second * cos + first * sin;
    }
  }
  return y;
}

TEST_P(QkvTest, MatchesTheDefinition) {
  // float32: values up to about 10 go through some ten roundings; bfloat16 adds the last one.
  const double relative = dtype_ == DType::kBFloat16 ? 0x1p-8 : 0.0;
  for (const Shape& shape :
       {Shape{}, Shape{4, 2, 64, 64, QkNorm::kNone}, Shape{4, 4, 64, 64, QkNorm::kAllHeads},
        Shape{4, 4, 64, 64, QkNorm::kAllHeads, 1.5f}, Shape{8, 1, 128, 32, QkNorm::kPerHead},
        Shape{2, 2, 8, 8, QkNorm::kPerHead}, Shape{3, 1, 20, 12, QkNorm::kNone, 2.0f},
        Shape{2, 1, 80, 80, QkNorm::kPerHead}, Shape{2, 1, 16, 0, QkNorm::kNone}}) {
    const int64_t rows = 9;
    const Inputs inputs(shape, rows);
    const Outputs outputs = Run(shape, inputs, 0, rows, 1);
    for (int64_t row = 0; row < rows; ++row) {
      const float* q = inputs.qkv.data() + row * shape.width();
      const float* k = q + shape.num_heads * shape.head_dim;
      const float* v = k + shape.num_kv_heads * shape.head_dim;
      const std::vector<double> q_expected =
          Reference(shape, inputs, q, shape.num_heads, inputs.q_weight.data(), row);
      for (size_t i = 0; i < q_expected.size(); ++i) {
        ASSERT_NEAR(outputs.q.Get(row * q_expected.size() + i), q_expected[i],
                    5e-6 + relative * std::abs(q_expected[i]));
      }
      const std::vector<double> k_expected =
          Reference(shape, inputs, k, shape.num_kv_heads, inputs.k_weight.data(), row);
      const std::vector<double> v_expected =
          Reference(shape, inputs, v, shape.num_kv_heads, nullptr, row);
      for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
        for (int64_t d = 0; d < shape.head_dim; ++d) {
          const int64_t block = inputs.slots[row] / kKvBlockTokens;
          const int64_t offset = inputs.slots[row] % kKvBlockTokens;
          const int64_t at =
              ((block * shape.num_kv_heads + h) * kKvBlockTokens + offset) * shape.head_dim + d;
          const double key = k_expected[h * shape.head_dim + d];
          const double value = v_expected[h * shape.head_dim + d];
          ASSERT_NEAR(outputs.k_cache.Get(at), key, 5e-6 + relative * std::abs(key));
          ASSERT_NEAR(outputs.v_cache.Get(at), value, 5e-6 + relative * std::abs(value));
        }
      }
    }
  }
}

TEST_P(QkvTest, RowsKeepTheirBitsInAnyBatch) {
  const Shape shape;
  const int64_t rows = 128;
  const Inputs inputs(shape, rows);
  const Outputs all = Run(shape, inputs, 0, rows, 3);
  const int64_t q_values = shape.num_heads * shape.head_dim;
  Tensor k_cache(dtype_, all.k_cache.size());
  Tensor v_cache(dtype_, all.v_cache.size());
  for (int64_t row = 0; row < rows; ++row) {
    const Outputs one = Run(shape, inputs, row, 1, 1);
    for (int64_t i = 0; i < q_values; ++i) {
      ASSERT_EQ(one.q.Get(i), all.q.Get(row * q_values + i));
    }
    // A call writes its own slots alone, so the single rows together fill the same cache.
    for (size_t i = 0; i < k_cache.size(); ++i) {
      if (one.k_cache.Get(i) != 0.0f) k_cache.Set(i, one.k_cache.Get(i));
      if (one.v_cache.Get(i) != 0.0f) v_cache.Set(i, one.v_cache.Get(i));
    }
  }
  EXPECT_EQ(k_cache.bytes(), all.k_cache.bytes());
  EXPECT_EQ(v_cache.bytes(), all.v_cache.bytes());
}

INSTANTIATE_TEST_SUITE_P(Isas,
                         QkvTest,
                         testing::Combine(testing::ValuesIn(SupportedIsas()),
                                          testing::Values(DType::kFloat32, DType::kBFloat16)),
                         IsaDTypeTestName);

}  // namespace
}  // namespace moesaic::kernels
