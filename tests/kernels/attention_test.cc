#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "base/thread_pool.h"
#include "core/batch.h"
#include "kernels/kernel_table.h"
#include "tests/kernels/tensor.h"

namespace moesaic::kernels {
namespace {

static_assert(kKvBlockTokens == moesaic::kKvBlockTokens);

struct Shape {
  int64_t num_heads = 4;
  int64_t num_kv_heads = 2;
  int64_t head_dim = 64;
  int64_t window = 0;
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
};

// One sequence's tokens: row p of q, k and v belongs to position p.
struct Tokens {
  Tokens(DType dtype, const Shape& shape, int64_t count, uint32_t seed)
      : count(count),
        q(dtype, count * shape.num_heads * shape.head_dim),
        k(dtype, count * shape.num_kv_heads * shape.head_dim),
        v(dtype, count * shape.num_kv_heads * shape.head_dim) {
    std::mt19937 random(seed);
    for (Tensor* tensor : {&q, &k, &v}) {
      const std::vector<float> values = RandomNormal(random, tensor->size());
      for (size_t i = 0; i < values.size(); ++i) tensor->Set(i, values[i]);
    }
  }
  int64_t count;
  Tensor q;
  Tensor k;
  Tensor v;
};

// Rows [begin, end) of one sequence inside a call.
struct Chunk {
  const Tokens* tokens;
  int64_t begin;
  int64_t end;
};

// Runs one call over `chunks` and returns the output of each row in turn. Blocks lie in an order
// that `seed` shuffles; whatever a row must not see is NaN.
Tensor RunAttention(const KernelTable& kernels,
                    DType dtype,
                    const Shape& shape,
                    const std::vector<Chunk>& chunks,
                    int threads,
                    uint32_t seed) {
  std::vector<int32_t> ids;
  int64_t rows = 0;
  int64_t blocks = 0;
  for (const Chunk& chunk : chunks) {
    rows += chunk.end - chunk.begin;
    blocks += (chunk.end + kKvBlockTokens - 1) / kKvBlockTokens;
  }
  ids.resize(blocks + 3);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));

  const int64_t block_values = shape.num_kv_heads * kKvBlockTokens * shape.head_dim;
  Tensor k_cache(dtype, ids.size() * block_values);
  Tensor v_cache(dtype, ids.size() * block_values);
  k_cache.FillWithNaN();
  v_cache.FillWithNaN();
  const int64_t q_values = shape.num_heads * shape.head_dim;
  Tensor q(dtype, rows * q_values);
  Tensor output(dtype, rows * q_values);
  std::vector<std::vector<int32_t>> tables(chunks.size());
  std::vector<AttentionSequence> sequences(chunks.size());
  int64_t row = 0;
  size_t next_id = 0;
  for (size_t s = 0; s < chunks.size(); ++s) {
    const Chunk& chunk = chunks[s];
    const int64_t visible =
        shape.window > 0 ? std::max<int64_t>(0, chunk.begin - shape.window + 1) : 0;
    for (int64_t p = 0; p < chunk.end; ++p) {
      if (p % kKvBlockTokens == 0) {
        const int32_t id = ids[next_id++];
        tables[s].push_back(p + kKvBlockTokens <= visible ? -1 : id);
      }
      if (p < visible) continue;
      for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
        const int64_t from = (p * shape.num_kv_heads + h) * shape.head_dim;
        const int64_t to =
            ((tables[s].back() * shape.num_kv_heads + h) * kKvBlockTokens + p % kKvBlockTokens) *
            shape.head_dim;
        k_cache.Copy(to, chunk.tokens->k, from, shape.head_dim);
        v_cache.Copy(to, chunk.tokens->v, from, shape.head_dim);
      }
    }
    sequences[s].first_row = static_cast<int32_t>(row);
    sequences[s].num_rows = static_cast<int32_t>(chunk.end - chunk.begin);
    sequences[s].context_tokens = static_cast<int32_t>(chunk.begin);
    sequences[s].block_table = tables[s].data();
    const int64_t rows_here = chunk.end - chunk.begin;
    q.Copy(row * q_values, chunk.tokens->q, chunk.begin * q_values, rows_here * q_values);
    row += rows_here;
  }

  std::vector<float> workspace(kernels.attention_workspace_bytes(
                                   shape.num_heads, shape.num_kv_heads, shape.head_dim, threads) /
                                   sizeof(float),
                               std::numeric_limits<float>::quiet_NaN());
  AttentionArgs args;
  args.dtype = dtype;
  args.num_heads = shape.num_heads;
  args.num_kv_heads = shape.num_kv_heads;
  args.head_dim = shape.head_dim;
  args.scale = shape.scale();
  args.sliding_window = shape.window;
  args.num_sequences = static_cast<int64_t>(sequences.size());
  args.sequences = sequences.data();
  args.q = q.data();
  args.k_cache = k_cache.data();
  args.v_cache = v_cache.data();
  args.output = output.data();
  args.workspace = workspace.data();
  ThreadPool pool(threads);
  Stream stream;
  stream.pool = &pool;
  kernels.attention(args, stream);
  args.output = q.data();  // in place
  kernels.attention(args, stream);
  EXPECT_EQ(q.bytes(), output.bytes());
  return output;
}

// The definition, in float64, for one row and query head.
std::vector<double> Reference(const Shape& shape, const Tokens& tokens, int64_t p, int64_t head) {
  const int64_t kv_head = head / (shape.num_heads / shape.num_kv_heads);
  const int64_t first = shape.window > 0 ? std::max<int64_t>(0, p - shape.window + 1) : 0;
  const auto at = [&](int64_t t, int64_t d) {
    return (t * shape.num_kv_heads + kv_head) * shape.head_dim + d;
  };
  std::vector<double> weights;
  for (int64_t t = first; t <= p; ++t) {
    double dot = 0;
    for (int64_t d = 0; d < shape.head_dim; ++d) {
      dot += static_cast<double>(tokens.q.Get((p * shape.num_heads + head) * shape.head_dim + d)) *
             tokens.k.Get(at(t, d));
    }
    weights.push_back(dot * shape.scale());
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  std::vector<double> output(shape.head_dim, 0.0);
  for (int64_t t = first; t <= p; ++t) {
    for (int64_t d = 0; d < shape.head_dim; ++d) {
      output[d] += weights[t - first] / sum * tokens.v.Get(at(t, d));
    }
  }
  return output;
}

// Inputs are exact in both. Scores of unit normal heads err by a few 2^-24 times their size (below
// 1e-5 in the exponent), the weights of the average by as much, values are below 5. bfloat16 adds
// the rounding of the output, at most 2^-8 of its size.
void ExpectNearReference(DType dtype,
                         const Shape& shape,
                         const Tokens& tokens,
                         int64_t begin,
                         const Tensor& output,
                         int64_t first_row,
                         int64_t rows) {
  const double relative = dtype == DType::kBFloat16 ? 0x1p-8 : 0.0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < shape.num_heads; ++h) {
      const std::vector<double> expected = Reference(shape, tokens, begin + r, h);
      for (int64_t d = 0; d < shape.head_dim; ++d) {
        const float actual =
            output.Get(((first_row + r) * shape.num_heads + h) * shape.head_dim + d);
        ASSERT_NEAR(actual, expected[d], 2e-5 + relative * std::abs(expected[d]))
            << "position " << begin + r << " head " << h << " dim " << d;
      }
    }
  }
}

// Bytes of rows [first, first + count).
std::vector<uint8_t> RowBytes(const Tensor& output, int64_t rows, int64_t first, int64_t count) {
  const int64_t row_bytes = static_cast<int64_t>(output.bytes().size()) / rows;
  return {output.bytes().begin() + first * row_bytes,
          output.bytes().begin() + (first + count) * row_bytes};
}

class AttentionTest : public testing::TestWithParam<std::tuple<Isa, DType>> {
 protected:
  const KernelTable& kernels_ = CpuKernels(std::get<0>(GetParam()));
  const DType dtype_ = std::get<1>(GetParam());
};

TEST_P(AttentionTest, MatchesTheDefinitionForHeadSizesAndGroups) {
  uint32_t seed = 1;
  for (int64_t head_dim : {8, 16, 20, 32, 64, 80, 96, 128, 256}) {
    for (auto [heads, kv_heads] : {std::pair{1, 1}, {4, 2}, {3, 1}, {8, 2}, {8, 1}, {5, 5}}) {
      const Shape shape = {heads, kv_heads, head_dim, 0};
      const Tokens tokens(dtype_, shape, 40, ++seed);
      const Tensor output =
          RunAttention(kernels_, dtype_, shape, {{&tokens, 0, 40}}, /*threads=*/1, seed);
      ExpectNearReference(dtype_, shape, tokens, 0, output, 0, 40);
    }
  }
}

TEST_P(AttentionTest, MoreHeadsInAGroupThanATileHolds) {
  const Shape shape = {71, 1, 32, 0};
  const Tokens tokens(dtype_, shape, 300, 3);
  const Tensor output = RunAttention(kernels_, dtype_, shape, {{&tokens, 297, 300}}, 2, 4);
  ExpectNearReference(dtype_, shape, tokens, 297, output, 0, 3);
}

TEST_P(AttentionTest, MatchesTheDefinitionAroundBlockAndSplitBoundaries) {
  const Shape shape = {4, 2, 32, 0};
  const Tokens tokens(dtype_, shape, 800, 5);
  for (int64_t begin :
       {0, 1, 14, 15, 16, 17, 31, 32, 254, 255, 256, 257, 511, 512, 513, 767, 768}) {
    for (int64_t rows : {1, 2, 17}) {
      const Tensor output =
          RunAttention(kernels_, dtype_, shape, {{&tokens, begin, begin + rows}}, 2, 6);
      ExpectNearReference(dtype_, shape, tokens, begin, output, 0, rows);
    }
  }
}

TEST_P(AttentionTest, SlidingWindowsSmallerAndLargerThanTheContext) {
  for (int64_t window : {1, 5, 16, 17, 100, 255, 256, 257, 300, 1000}) {
    const Shape shape = {4, 1, 16, window};
    const Tokens tokens(dtype_, shape, 640, static_cast<uint32_t>(window));
    for (int64_t begin : {0, 15, 250, 256, 511, 600}) {
      for (int64_t rows : {1, 30}) {
        const Tensor output =
            RunAttention(kernels_, dtype_, shape, {{&tokens, begin, begin + rows}}, 2, 7);
        ExpectNearReference(dtype_, shape, tokens, begin, output, 0, rows);
      }
    }
  }
}

TEST_P(AttentionTest, ARowHasTheSameBitsInEveryChunkBatchAndPlace) {
  for (const Shape& shape : {Shape{4, 2, 64, 0}, Shape{8, 1, 80, 0}, Shape{3, 3, 32, 0},
                             Shape{6, 2, 16, 100}, Shape{2, 2, 20, 7}}) {
    const int64_t kTokens = 530;
    const Tokens tokens(dtype_, shape, kTokens, 8);
    const Tokens other(dtype_, shape, kTokens, 9);
    const Tensor whole =
        RunAttention(kernels_, dtype_, shape, {{&tokens, 0, kTokens}}, /*threads=*/1, 10);
    for (int64_t chunk : {1, 7, 16, 100}) {
      for (int64_t begin = 0; begin < kTokens; begin += chunk) {
        // Small chunks: those beside or across a block or split boundary of interest, some others.
        const int64_t to_split = (begin + chunk) % 256;
        if (chunk < 16 && to_split > 2 * chunk + 1 && begin % (13 * chunk) != 0) continue;
        const int64_t end = std::min(kTokens, begin + chunk);
        const int threads = 1 + static_cast<int>(begin / chunk % 3);
        const Tensor alone = RunAttention(kernels_, dtype_, shape, {{&tokens, begin, end}}, threads,
                                          static_cast<uint32_t>(begin));
        ASSERT_EQ(alone.bytes(), RowBytes(whole, kTokens, begin, end - begin))
            << "chunk of " << chunk << " at " << begin;
        if (begin % (5 * chunk) != 0) continue;
        const std::vector<Chunk> batch = {{&other, 0, 40},
                                          {&other, 300, 301},
                                          {&tokens, begin, end},
                                          {&other, begin, begin + 1},
                                          {&other, 500, kTokens}};
        const int64_t rows = 40 + 1 + (end - begin) + 1 + 30;
        const Tensor together = RunAttention(kernels_, dtype_, shape, batch, threads, 11);
        ASSERT_EQ(RowBytes(together, rows, 41, end - begin),
                  RowBytes(whole, kTokens, begin, end - begin))
            << "chunk of " << chunk << " at " << begin << " in a batch";
      }
    }
  }
}

TEST_P(AttentionTest, LongContextsAreMergedInWaves) {
  // More splits than the workspace keeps at a time, shared by several threads.
  const Shape shape = {8, 8, 16, 0};
  const int64_t kTokens = 256 * 11 + 3;
  const Tokens tokens(dtype_, shape, kTokens, 12);
  const Tensor one =
      RunAttention(kernels_, dtype_, shape, {{&tokens, kTokens - 1, kTokens}}, /*threads=*/1, 13);
  ExpectNearReference(dtype_, shape, tokens, kTokens - 1, one, 0, 1);
  for (int threads : {2, 5}) {
    const Tensor output = RunAttention(kernels_, dtype_, shape, {{&tokens, kTokens - 1, kTokens}},
                                       threads, static_cast<uint32_t>(threads));
    EXPECT_EQ(output.bytes(), one.bytes());
  }
}

TEST_P(AttentionTest, NotANumberStaysInItsSequence) {
  const Shape shape = {4, 2, 32, 0};
  const Tokens tokens(dtype_, shape, 300, 16);
  Tokens broken(dtype_, shape, 300, 17);
  for (size_t i = 0; i < broken.k.size(); ++i) {
    broken.k.Set(i, std::numeric_limits<float>::quiet_NaN());
  }
  const Tensor alone = RunAttention(kernels_, dtype_, shape, {{&tokens, 299, 300}}, 1, 18);
  const Tensor output = RunAttention(
      kernels_, dtype_, shape, {{&broken, 0, 270}, {&tokens, 299, 300}, {&broken, 5, 6}}, 1, 18);
  EXPECT_EQ(RowBytes(output, 272, 270, 1), alone.bytes());
  for (int64_t row : {0, 269, 271}) {
    for (int64_t i = 0; i < 128; ++i) EXPECT_TRUE(std::isnan(output.Get(row * 128 + i)));
  }
}

TEST_P(AttentionTest, ScoresFarApartNeitherOverflowNorVanish) {
  const Shape shape = {2, 1, 16, 0};
  Tokens tokens(dtype_, shape, 300, 14);
  for (size_t i = 0; i < tokens.k.size(); ++i) tokens.k.Set(i, tokens.k.Get(i) * 100.0f);
  const Tensor output = RunAttention(kernels_, dtype_, shape, {{&tokens, 0, 300}}, 2, 15);
  // Scores are of the order of 100, so their rounding counts 100 times as much in the exponent.
  for (int64_t p = 0; p < 300; ++p) {
    for (int64_t h = 0; h < 2; ++h) {
      const std::vector<double> expected = Reference(shape, tokens, p, h);
      for (int64_t d = 0; d < 16; ++d) {
        ASSERT_NEAR(output.Get((p * 2 + h) * 16 + d), expected[d],
                    1e-3 + 0x1p-8 * std::abs(expected[d]));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas,
                         AttentionTest,
                         testing::Combine(testing::ValuesIn(SupportedIsas()),
                                          testing::Values(DType::kFloat32, DType::kBFloat16)),
                         IsaDTypeTestName);

}  // namespace
}  // namespace moesaic::kernels
