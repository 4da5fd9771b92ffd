#include "memory/kv_cache.h"

#include <cstring>
#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/batch.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

const KvShape kShape = {
    .num_layers = 3, .num_kv_heads = 2, .head_dim = 8, .dtype = DType::kBFloat16};
constexpr int64_t kLayerBlockBytes = 2 * 2 * 8 * kKvBlockTokens;
constexpr int64_t kBlockBytes = 2 * 3 * kLayerBlockBytes;

TEST(KvCacheTest, CountsBytes) {
  EXPECT_EQ(kShape.LayerBlockBytes(), kLayerBlockBytes);
  EXPECT_EQ(kShape.BlockBytes(), kBlockBytes);
  KvShape wide = kShape;
  wide.dtype = DType::kFloat32;
  EXPECT_EQ(wide.BlockBytes(), 2 * kBlockBytes);
}

TEST(KvCacheTest, HoldsAsManyBlocksAsFit) {
  for (auto [budget, blocks] : {std::pair{kBlockBytes, 1},
                                {2 * kBlockBytes - 1, 1},
                                {2 * kBlockBytes, 2},
                                {1000 * kBlockBytes + 5, 1000}}) {
    const absl::StatusOr<KvCache> cache = KvCache::Create(kShape, budget);
    ASSERT_TRUE(cache.ok()) << cache.status();
    EXPECT_EQ(cache->num_blocks(), blocks);
  }
}

TEST(KvCacheTest, LayersDoNotOverlapAndAreZero) {
  const int64_t blocks = 5;
  absl::StatusOr<KvCache> cache = KvCache::Create(kShape, blocks * kBlockBytes);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const int64_t layer_bytes = blocks * kLayerBlockBytes;
  for (int layer = 0; layer < kShape.num_layers; ++layer) {
    for (void* part : {cache->k(layer), cache->v(layer)}) {
      for (int64_t i = 0; i < layer_bytes; ++i) ASSERT_EQ(static_cast<char*>(part)[i], 0);
    }
  }
  for (int layer = 0; layer < kShape.num_layers; ++layer) {
    std::memset(cache->k(layer), 2 * layer + 1, layer_bytes);
    std::memset(cache->v(layer), 2 * layer + 2, layer_bytes);
  }
  for (int layer = 0; layer < kShape.num_layers; ++layer) {
    for (int64_t i = 0; i < layer_bytes; ++i) {
      ASSERT_EQ(static_cast<char*>(cache->k(layer))[i], 2 * layer + 1);
      ASSERT_EQ(static_cast<char*>(cache->v(layer))[i], 2 * layer + 2);
    }
  }
}

TEST(KvCacheTest, MovesWithItsMemory) {
  absl::StatusOr<KvCache> cache = KvCache::Create(kShape, 2 * kBlockBytes);
  ASSERT_TRUE(cache.ok()) << cache.status();
  void* const k = cache->k(1);
  const KvCache moved = *std::move(cache);
  EXPECT_EQ(moved.k(1), k);
  EXPECT_EQ(moved.num_blocks(), 2);
}

TEST(KvCacheTest, RefusesABudgetBelowOneBlock) {
  for (int64_t budget : {kBlockBytes - 1, int64_t{0}, int64_t{-1}}) {
    const absl::StatusOr<KvCache> cache = KvCache::Create(kShape, budget);
    EXPECT_EQ(cache.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(cache.status().message()), HasSubstr("one block"));
  }
}

TEST(KvCacheTest, RefusesImpossibleShapes) {
  const int32_t most = std::numeric_limits<int32_t>::max();
  for (const KvShape& shape : {KvShape{0, 2, 8}, KvShape{3, 0, 8}, KvShape{3, 2, 0},
                               KvShape{-1, -2, 8}, KvShape{most, most, most}}) {
    EXPECT_EQ(KvCache::Create(shape, std::numeric_limits<int64_t>::max()).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(KvCacheTest, ReportsMemoryThatCannotBeHad) {
  EXPECT_EQ(KvCache::Create(kShape, int64_t{1} << 60).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace moesaic
