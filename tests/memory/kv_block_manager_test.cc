#include "memory/kv_block_manager.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

std::vector<int32_t> Tokens(int32_t count, int32_t first = 0) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Computes all of `tokens` in `table` as an engine step would.
void Compute(KvBlockManager& manager, const std::vector<int32_t>& tokens, KvBlockTable& table) {
  std::vector<KvBlockCopy> copies;
  manager.Reserve(table, 0, static_cast<int32_t>(tokens.size()), copies);
  manager.Publish(tokens, static_cast<int32_t>(tokens.size()), table);
}

TEST(KvBlockManagerTest, ReservesWholeBlocksAndFreesThem) {
  KvBlockManager manager(8, true, 0);
  KvBlockTable table;
  std::vector<KvBlockCopy> copies;
  EXPECT_EQ(manager.BlocksToReserve(table, 0, 17), 2);
  manager.Reserve(table, 0, 17, copies);
  EXPECT_EQ(table.blocks.size(), 2u);
  EXPECT_EQ(manager.BlocksToReserve(table, 17, 32), 0);
  EXPECT_EQ(manager.BlocksToReserve(table, 17, 33), 1);
  EXPECT_EQ(manager.used_blocks(), 2);
  manager.Release(table);
  EXPECT_EQ(manager.used_blocks(), 0);
  EXPECT_TRUE(table.blocks.empty());
  EXPECT_TRUE(copies.empty());
}

TEST(KvBlockManagerTest, FindsFullBlocksOfAnEarlierSequence) {
  KvBlockManager manager(8, true, 0);
  const std::vector<int32_t> tokens = Tokens(40);
  KvBlockTable first;
  Compute(manager, tokens, first);
  const std::vector<int32_t> blocks = first.blocks;
  manager.Release(first);

  // 40 tokens fill two blocks; the cap decides how many may be used.
  EXPECT_EQ(manager.FindPrefix(tokens, 39).blocks, 2);
  EXPECT_EQ(manager.FindPrefix(tokens, 39).free_blocks, 2);
  EXPECT_EQ(manager.FindPrefix(tokens, 32).blocks, 2);
  EXPECT_EQ(manager.FindPrefix(tokens, 31).blocks, 1);
  EXPECT_EQ(manager.FindPrefix(tokens, 0).blocks, 0);
  std::vector<int32_t> other = tokens;
  other[20] = 999;
  EXPECT_EQ(manager.FindPrefix(other, 39).blocks, 1);
  other[0] = 999;
  EXPECT_EQ(manager.FindPrefix(other, 39).blocks, 0);
  // The second block's tokens at the start are another run.
  EXPECT_EQ(manager.FindPrefix(Tokens(20, 16), 20).blocks, 0);

  KvBlockTable second;
  manager.TakePrefix(tokens, 2, second);
  EXPECT_EQ(second.blocks, std::vector<int32_t>(blocks.begin(), blocks.begin() + 2));
  EXPECT_EQ(manager.used_blocks(), 2);
  EXPECT_EQ(manager.FindPrefix(tokens, 39).free_blocks, 0);
  manager.Release(second);
  EXPECT_EQ(manager.used_blocks(), 0);
}

TEST(KvBlockManagerTest, WithoutPrefixCacheNothingIsFound) {
  KvBlockManager manager(8, false, 0);
  KvBlockTable table;
  Compute(manager, Tokens(40), table);
  EXPECT_EQ(manager.FindPrefix(Tokens(40), 39).blocks, 0);
}

TEST(KvBlockManagerTest, EvictsTheLeastRecentlyReleasedAndTheEndsOfRunsFirst) {
  KvBlockManager manager(6, true, 0);
  const std::vector<int32_t> a = Tokens(48);
  const std::vector<int32_t> b = Tokens(48, 1000);
  for (const auto& tokens : {a, b}) {
    KvBlockTable table;
    Compute(manager, tokens, table);
    manager.Release(table);
  }
  const auto kept = [&] {
    return std::vector<int32_t>{manager.FindPrefix(a, 48).blocks, manager.FindPrefix(b, 48).blocks};
  };
  EXPECT_EQ(kept(), (std::vector<int32_t>{3, 3}));
  KvBlockTable other;
  std::vector<KvBlockCopy> copies;
  manager.Reserve(other, 0, 16, copies);
  EXPECT_EQ(kept(), (std::vector<int32_t>{2, 3}));
  manager.Reserve(other, 16, 64, copies);
  EXPECT_EQ(kept(), (std::vector<int32_t>{0, 2}));
  // Blocks without content are taken before cached ones.
  manager.Release(other);
  manager.Reserve(other, 0, 64, copies);
  EXPECT_EQ(kept(), (std::vector<int32_t>{0, 2}));
}

TEST(KvBlockManagerTest, BlocksInUseAreNotEvicted) {
  KvBlockManager manager(4, true, 0);
  const std::vector<int32_t> tokens = Tokens(32);
  KvBlockTable table;
  Compute(manager, tokens, table);
  KvBlockTable other;
  std::vector<KvBlockCopy> copies;
  manager.Reserve(other, 0, 32, copies);
  EXPECT_EQ(manager.free_blocks(), 0);
  EXPECT_EQ(manager.FindPrefix(tokens, 32).blocks, 2);
}

TEST(KvBlockManagerTest, ForksShareBlocksAndCopyThePartlyFilledOne) {
  KvBlockManager manager(16, true, 0);
  std::vector<KvBlockTable> tables(3);
  Compute(manager, Tokens(40), tables[0]);
  manager.Fork(tables[0], tables[1]);
  manager.Fork(tables[0], tables[2]);
  EXPECT_EQ(manager.used_blocks(), 3);

  std::vector<KvBlockCopy> copies;
  const int32_t shared = tables[0].blocks[2];
  for (KvBlockTable& table : tables) {
    const int32_t free = manager.free_blocks();
    const int32_t expected = manager.BlocksToReserve(table, 40, 41);
    manager.Reserve(table, 40, 41, copies);
    EXPECT_EQ(free - manager.free_blocks(), expected);
  }
  // The last holder writes in place.
  ASSERT_EQ(copies.size(), 2u);
  EXPECT_EQ(copies[0].from, shared);
  EXPECT_EQ(copies[0].to, tables[0].blocks[2]);
  EXPECT_EQ(copies[1].to, tables[1].blocks[2]);
  EXPECT_EQ(tables[2].blocks[2], shared);
  EXPECT_EQ(manager.used_blocks(), 5);
  EXPECT_EQ(tables[0].blocks[1], tables[2].blocks[1]);
  for (KvBlockTable& table : tables) manager.Release(table);
  EXPECT_EQ(manager.used_blocks(), 0);
}

TEST(KvBlockManagerTest, AFullSharedBlockNeedsNoCopy) {
  KvBlockManager manager(8, true, 0);
  KvBlockTable a;
  KvBlockTable b;
  Compute(manager, Tokens(32), a);
  manager.Fork(a, b);
  std::vector<KvBlockCopy> copies;
  manager.Reserve(a, 32, 33, copies);
  manager.Reserve(b, 32, 33, copies);
  EXPECT_TRUE(copies.empty());
  EXPECT_EQ(manager.used_blocks(), 4);
}

TEST(KvBlockManagerTest, SequencesComputedSideBySideShareOneIdentity) {
  KvBlockManager manager(8, true, 0);
  KvBlockTable a;
  KvBlockTable b;
  Compute(manager, Tokens(32), a);
  Compute(manager, Tokens(32), b);
  EXPECT_EQ(a.prefix, b.prefix);
  manager.Release(b);
  EXPECT_EQ(manager.FindPrefix(Tokens(32), 32).blocks, 2);
  EXPECT_EQ(manager.FindPrefix(Tokens(32), 32).free_blocks, 0);
}

TEST(KvBlockManagerTest, BlocksBehindTheWindowAreReleased) {
  // A row at p sees p - 19 .. p.
  KvBlockManager manager(16, true, 20);
  KvBlockTable table;
  Compute(manager, Tokens(64), table);
  manager.ReleaseBehindWindow(34, table);
  EXPECT_GE(table.blocks[0], 0);  // position 15 is still seen
  manager.ReleaseBehindWindow(35, table);
  EXPECT_EQ(table.blocks[0], -1);
  manager.ReleaseBehindWindow(64, table);
  EXPECT_EQ(table.blocks[1], -1);
  EXPECT_GE(table.blocks[2], 0);
  EXPECT_EQ(manager.used_blocks(), 2);

  // A prefix behind the window is found, but only what is seen is taken.
  KvBlockTable again;
  EXPECT_EQ(manager.FindPrefix(Tokens(64), 64).blocks, 4);
  EXPECT_EQ(manager.FindPrefix(Tokens(64), 64).free_blocks, 0);
  manager.TakePrefix(Tokens(64), 4, again);
  EXPECT_EQ(again.blocks[1], -1);
  EXPECT_EQ(again.blocks[3], table.blocks[3]);
  EXPECT_EQ(manager.used_blocks(), 2);
  manager.Release(table);
  manager.Release(again);
  EXPECT_EQ(manager.used_blocks(), 0);
  EXPECT_EQ(manager.MaxBlocksHeld(1000), 4);
  EXPECT_EQ(manager.MaxBlocksHeld(17), 2);
}

// Random traffic against a plain model: what a table reads must be what was written for its tokens.
TEST(KvBlockManagerTest, RandomTrafficKeepsContentsAndCounts) {
  constexpr int32_t kBlocks = 24;
  for (int32_t window : {0, 24}) {
    KvBlockManager manager(kBlocks, true, window);
    std::mt19937 random(7);
    std::vector<std::vector<int32_t>> contents(kBlocks, std::vector<int32_t>(kKvBlockTokens, -1));
    struct Live {
      std::vector<int32_t> tokens;
      int32_t computed = 0;
      KvBlockTable table;
    };
    std::vector<Live> live;
    std::vector<KvBlockCopy> copies;
    int hits = 0;
    for (int step = 0; step < 20000; ++step) {
      const int action = static_cast<int>(random() % 8);
      if (action == 0 && live.size() < 6) {
        Live sequence;
        for (int i = static_cast<int>(random() % 70) + 1; i > 0; --i) {
          sequence.tokens.push_back(static_cast<int32_t>(sequence.tokens.size() / 16 % 2));
        }
        for (int i = 0; i < 2; ++i) {
          sequence.tokens[random() % sequence.tokens.size()] = static_cast<int32_t>(random() % 2);
        }
        const auto match =
            manager.FindPrefix(sequence.tokens, static_cast<int32_t>(sequence.tokens.size()) - 1);
        if (match.free_blocks <= manager.free_blocks()) {
          manager.TakePrefix(sequence.tokens, match.blocks, sequence.table);
          sequence.computed = match.blocks * kKvBlockTokens;
          hits += match.blocks;
          live.push_back(std::move(sequence));
        }
      } else if (action == 1 && !live.empty()) {
        const size_t victim = random() % live.size();
        manager.Release(live[victim].table);
        live.erase(live.begin() + static_cast<ptrdiff_t>(victim));
      } else if (action == 2 && !live.empty() && live.size() < 6) {
        Live child{live[random() % live.size()].tokens, 0, {}};
        const Live& parent = *std::find_if(live.begin(), live.end(),
                                           [&](const Live& l) { return l.tokens == child.tokens; });
        child.computed = parent.computed;
        manager.Fork(parent.table, child.table);
        live.push_back(std::move(child));
      } else if (!live.empty()) {
        Live& sequence = live[random() % live.size()];
        const int32_t end = sequence.computed + 1 + static_cast<int32_t>(random() % 9);
        while (static_cast<int32_t>(sequence.tokens.size()) < end) {
          sequence.tokens.push_back(static_cast<int32_t>(random() % 2));
        }
        const int32_t needed = manager.BlocksToReserve(sequence.table, sequence.computed, end);
        if (needed > manager.free_blocks()) continue;
        copies.clear();
        const int32_t free = manager.free_blocks();
        manager.Reserve(sequence.table, sequence.computed, end, copies);
        ASSERT_EQ(free - manager.free_blocks(), needed);
        for (const KvBlockCopy& copy : copies) contents[copy.to] = contents[copy.from];
        for (int32_t p = sequence.computed; p < end; ++p) {
          contents[sequence.table.blocks[p / 16]][p % 16] = sequence.tokens[p];
        }
        sequence.computed = end;
        manager.Publish(sequence.tokens, end, sequence.table);
        manager.ReleaseBehindWindow(end, sequence.table);
      }

      std::set<int32_t> used;
      for (const Live& sequence : live) {
        for (int32_t p = window == 0 ? 0 : std::max(0, sequence.computed - window + 1);
             p < sequence.computed; ++p) {
          const int32_t block = sequence.table.blocks[p / 16];
          ASSERT_GE(block, 0);
          ASSERT_EQ(contents[block][p % 16], sequence.tokens[p]) << "step " << step;
        }
        for (int32_t block : sequence.table.blocks) {
          if (block >= 0) used.insert(block);
        }
      }
      ASSERT_EQ(manager.used_blocks(), static_cast<int32_t>(used.size()));
    }
    EXPECT_GT(hits, 100);
  }
}

TEST(KvBlockManagerTest, CopiesABlockInEveryLayer) {
  const KvShape shape{.num_layers = 2, .num_kv_heads = 2, .head_dim = 4, .dtype = DType::kFloat32};
  auto cache = KvCache::Create(shape, shape.BlockBytes() * 3);
  ASSERT_TRUE(cache.ok());
  const size_t floats = static_cast<size_t>(shape.LayerBlockBytes()) / sizeof(float);
  for (int32_t layer = 0; layer < 2; ++layer) {
    for (size_t i = 0; i < floats; ++i) {
      static_cast<float*>(cache->k(layer))[floats + i] = static_cast<float>(i + 100 * layer);
      static_cast<float*>(cache->v(layer))[floats + i] = -static_cast<float>(i + 100 * layer);
    }
  }
  CopyKvBlock(*cache, {.from = 1, .to = 2});
  for (int32_t layer = 0; layer < 2; ++layer) {
    for (void* data : {cache->k(layer), cache->v(layer)}) {
      const float* values = static_cast<float*>(data);
      EXPECT_EQ(std::memcmp(values + floats, values + 2 * floats, floats * sizeof(float)), 0);
      EXPECT_EQ(values[0], 0.0f);
    }
  }
}

}  // namespace
}  // namespace moesaic
