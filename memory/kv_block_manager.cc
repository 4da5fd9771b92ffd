#include "memory/kv_block_manager.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <random>

#include <xxhash.h>

#include "base/checked_math.h"

namespace moesaic {
namespace {

// Unpredictable, so that nobody can prepare prompts whose keys fall into one bucket.
uint64_t RandomSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

}  // namespace

size_t KvBlockManager::KeyHash::operator()(const Key& key) const {
  static_assert(sizeof(Key) == sizeof(PrefixId) + sizeof(int32_t) * kKvBlockTokens);
  return XXH3_64bits_withSeed(&key, sizeof(key), seed);
}

KvBlockManager::KvBlockManager(int32_t num_blocks, bool prefix_cache, int32_t sliding_window)
    : prefix_cache_(prefix_cache),
      sliding_window_(sliding_window),
      blocks_(num_blocks),
      cached_(0, KeyHash{RandomSeed()}) {
  if (prefix_cache_) cached_.reserve(num_blocks);
  match_.reserve(num_blocks);
  for (int32_t block = 0; block < num_blocks; ++block) LinkFree(block, /*front=*/false);
}

int32_t KvBlockManager::Find(PrefixId parent, std::span<const int32_t> tokens) const {
  Key key{.parent = parent};
  std::copy_n(tokens.begin(), kKvBlockTokens, key.tokens.begin());
  const auto it = cached_.find(key);
  return it == cached_.end() ? -1 : it->second;
}

int32_t KvBlockManager::FirstBlockInWindow(int32_t position) const {
  return sliding_window_ == 0 ? 0 : std::max(0, position - sliding_window_ + 1) / kKvBlockTokens;
}

int32_t KvBlockManager::MaxBlocksHeld(int32_t num_tokens) const {
  const int32_t all = CeilDiv(num_tokens, kKvBlockTokens);
  // The window may begin and end inside a block, and a new block comes before the first is
  // released.
  return sliding_window_ == 0 ? all : std::min(all, CeilDiv(sliding_window_, kKvBlockTokens) + 2);
}

KvBlockManager::PrefixMatch KvBlockManager::FindPrefix(std::span<const int32_t> tokens,
                                                       int32_t max_tokens) {
  PrefixMatch match;
  if (!prefix_cache_) return match;
  match_.clear();
  const size_t limit = std::min(tokens.size(), static_cast<size_t>(std::max(max_tokens, 0)));
  PrefixId prefix = 0;
  for (size_t begin = 0; begin + kKvBlockTokens <= limit; begin += kKvBlockTokens) {
    const int32_t block = Find(prefix, tokens.subspan(begin, kKvBlockTokens));
    if (block < 0) break;
    prefix = blocks_[block].prefix;
    match_.push_back(block);
  }
  match.blocks = static_cast<int32_t>(match_.size());
  for (int32_t i = FirstBlockInWindow(match.blocks * kKvBlockTokens); i < match.blocks; ++i) {
    if (blocks_[match_[i]].references == 0) ++match.free_blocks;
  }
  return match;
}

void KvBlockManager::TakePrefix(std::span<const int32_t> tokens,
                                int32_t num_blocks,
                                KvBlockTable& table) {
  assert(table.blocks.empty());
  table.first_held = FirstBlockInWindow(num_blocks * kKvBlockTokens);
  for (int32_t i = 0; i < num_blocks; ++i) {
    const int32_t block =
        Find(table.prefix, tokens.subspan(size_t{kKvBlockTokens} * i, kKvBlockTokens));
    assert(block >= 0);
    table.prefix = blocks_[block].prefix;
    if (i >= table.first_held) AddReference(block);
    table.blocks.push_back(i >= table.first_held ? block : -1);
  }
  table.published = num_blocks;
}

bool KvBlockManager::IsSharedPartly(const KvBlockTable& table, int32_t position) const {
  if (position % kKvBlockTokens == 0) return false;
  return blocks_[table.blocks[position / kKvBlockTokens]].references > 1;
}

int32_t KvBlockManager::BlocksToReserve(const KvBlockTable& table,
                                        int32_t position,
                                        int32_t end) const {
  const int32_t held = static_cast<int32_t>(table.blocks.size());
  return std::max(0, CeilDiv(end, kKvBlockTokens) - held) +
         (IsSharedPartly(table, position) ? 1 : 0);
}

void KvBlockManager::Reserve(KvBlockTable& table,
                             int32_t position,
                             int32_t end,
                             std::vector<KvBlockCopy>& copies) {
  if (IsSharedPartly(table, position)) {
    int32_t& block = table.blocks[position / kKvBlockTokens];
    const int32_t copy = Allocate();
    copies.push_back({.from = block, .to = copy});
    DropReference(block);
    block = copy;
  }
  const int32_t needed = CeilDiv(end, kKvBlockTokens);
  while (static_cast<int32_t>(table.blocks.size()) < needed) table.blocks.push_back(Allocate());
}

void KvBlockManager::Fork(const KvBlockTable& from, KvBlockTable& to) {
  assert(to.blocks.empty());
  to = from;
  for (int32_t block : to.blocks) {
    if (block >= 0) AddReference(block);
  }
}

void KvBlockManager::Publish(std::span<const int32_t> tokens,
                             int32_t computed_tokens,
                             KvBlockTable& table) {
  if (!prefix_cache_) return;
  for (; table.published < computed_tokens / kKvBlockTokens; ++table.published) {
    Key key{.parent = table.prefix};
    const size_t begin = size_t{kKvBlockTokens} * table.published;
    std::copy_n(tokens.begin() + begin, kKvBlockTokens, key.tokens.begin());
    const int32_t block = table.blocks[table.published];
    const auto [it, inserted] = cached_.try_emplace(key, block);
    if (inserted) {
      blocks_[block].prefix = ++last_prefix_;
      blocks_[block].key = key;
    }
    // A sequence that computed the same content at the same time goes on from the first one's
    // identity.
    table.prefix = blocks_[it->second].prefix;
  }
}

void KvBlockManager::ReleaseBehindWindow(int32_t position, KvBlockTable& table) {
  const int32_t end =
      std::min(FirstBlockInWindow(position), static_cast<int32_t>(table.blocks.size()));
  for (; table.first_held < end; ++table.first_held) {
    DropReference(table.blocks[table.first_held]);
    table.blocks[table.first_held] = -1;
  }
}

void KvBlockManager::Release(KvBlockTable& table) {
  for (size_t i = table.blocks.size(); i-- > static_cast<size_t>(table.first_held);) {
    DropReference(table.blocks[i]);
  }
  table.blocks.clear();
  table.first_held = 0;
  table.published = 0;
  table.prefix = 0;
}

int32_t KvBlockManager::Allocate() {
  assert(free_head_ >= 0);
  const int32_t id = free_head_;
  UnlinkFree(id);
  Block& block = blocks_[id];
  if (block.prefix != 0) {
    cached_.erase(block.key);
    block.prefix = 0;
  }
  block.references = 1;
  return id;
}

void KvBlockManager::AddReference(int32_t id) {
  if (blocks_[id].references++ == 0) UnlinkFree(id);
}

void KvBlockManager::DropReference(int32_t id) {
  assert(blocks_[id].references > 0);
  if (--blocks_[id].references == 0) LinkFree(id, /*front=*/blocks_[id].prefix == 0);
}

void KvBlockManager::LinkFree(int32_t id, bool front) {
  Block& block = blocks_[id];
  block.previous = front ? -1 : free_tail_;
  block.next = front ? free_head_ : -1;
  (block.previous >= 0 ? blocks_[block.previous].next : free_head_) = id;
  (block.next >= 0 ? blocks_[block.next].previous : free_tail_) = id;
  ++free_blocks_;
}

void KvBlockManager::UnlinkFree(int32_t id) {
  const Block& block = blocks_[id];
  (block.previous >= 0 ? blocks_[block.previous].next : free_head_) = block.next;
  (block.next >= 0 ? blocks_[block.next].previous : free_tail_) = block.previous;
  --free_blocks_;
}

void CopyKvBlock(const KvCache& cache, const KvBlockCopy& copy) {
  const int64_t bytes = cache.shape().LayerBlockBytes();
  for (int32_t layer = 0; layer < cache.shape().num_layers; ++layer) {
    for (void* data : {cache.k(layer), cache.v(layer)}) {
      std::byte* base = static_cast<std::byte*>(data);
      std::memcpy(base + copy.to * bytes, base + copy.from * bytes, bytes);
    }
  }
}

}  // namespace moesaic
