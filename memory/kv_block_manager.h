#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "core/batch.h"
#include "memory/kv_cache.h"

namespace moesaic {

// Identity of a run of full blocks from position 0; 0 is the empty run. Never reused.
using PrefixId = uint64_t;

// The KV blocks of one sequence in position order. Changed by KvBlockManager alone.
struct KvBlockTable {
  std::vector<int32_t> blocks;  // -1: released behind the sliding window
  int32_t first_held = 0;       // entries before it are -1
  int32_t published = 0;        // leading full blocks that were offered to the prefix cache
  PrefixId prefix = 0;          // identity of these
};

// A partly filled block that must be copied before its sequence writes on.
struct KvBlockCopy {
  int32_t from = 0;
  int32_t to = 0;
};

// Who holds which KV block: a fixed pool, reference counts, and the prefix cache.
//
// The prefix cache keeps full blocks by content. A block's key is the identity of the run before it
// and its own 16 tokens, and the whole key is compared, so a collision of hashes can never hand one
// request the KV of another. Blocks that no sequence holds stay reusable until they are evicted,
// least recently released first; of one sequence the last block goes first, since the earlier ones
// are more widely useful.
//
// Owner: engine. Thread: the engine's. No allocation after construction but growth of the callers'
// tables.
class KvBlockManager {
 public:
  // `sliding_window` > 0: no layer looks further back than so many tokens, the newest included.
  KvBlockManager(int32_t num_blocks, bool prefix_cache, int32_t sliding_window);

  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  // Held by no sequence; those kept for prefix reuse count as free.
  int32_t free_blocks() const { return free_blocks_; }
  int32_t used_blocks() const { return num_blocks() - free_blocks_; }
  // The most blocks that a sequence of `num_tokens` holds at a time when it is computed in small
  // enough chunks.
  int32_t MaxBlocksHeld(int32_t num_tokens) const;

  struct PrefixMatch {
    int32_t blocks = 0;
    int32_t free_blocks = 0;  // that nobody holds now: taking the prefix uses up free blocks
  };
  // The longest cached run of full blocks within the first `max_tokens` of `tokens`.
  PrefixMatch FindPrefix(std::span<const int32_t> tokens, int32_t max_tokens);
  // Makes an empty `table` hold the run that FindPrefix found, without what lies behind the sliding
  // window. Nothing may be reserved in between.
  void TakePrefix(std::span<const int32_t> tokens, int32_t num_blocks, KvBlockTable& table);

  // Whether writing at `position` needs a copy of its block first: it is partly filled and shared.
  bool IsSharedPartly(const KvBlockTable& table, int32_t position) const;
  // Blocks that Reserve would take from the free ones.
  int32_t BlocksToReserve(const KvBlockTable& table, int32_t position, int32_t end) const;
  // Makes positions [position, end) writable: a shared, partly filled block is replaced (the copy
  // to make is appended to `copies`) and new blocks follow. Takes BlocksToReserve() blocks, which
  // the caller knows to be free.
  void Reserve(KvBlockTable& table,
               int32_t position,
               int32_t end,
               std::vector<KvBlockCopy>& copies);

  // `to`, empty, shares every block of `from`.
  void Fork(const KvBlockTable& from, KvBlockTable& to);
  // Offers the full blocks among the first `computed_tokens` of `tokens` to the prefix cache; their
  // KV must be complete.
  void Publish(std::span<const int32_t> tokens, int32_t computed_tokens, KvBlockTable& table);
  // Releases the blocks that no row at `position` or later looks at.
  void ReleaseBehindWindow(int32_t position, KvBlockTable& table);
  // Releases all and empties `table`.
  void Release(KvBlockTable& table);

 private:
  struct Key {
    PrefixId parent = 0;
    std::array<int32_t, kKvBlockTokens> tokens{};
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    uint64_t seed;
    size_t operator()(const Key& key) const;
  };
  struct Block {
    int32_t references = 0;
    int32_t previous = -1;  // neighbours in the free list
    int32_t next = -1;
    PrefixId prefix = 0;  // of the run that ends here; 0: not in the cache
    Key key;
  };

  int32_t Find(PrefixId parent, std::span<const int32_t> tokens) const;
  int32_t FirstBlockInWindow(int32_t position) const;
  int32_t Allocate();
  void AddReference(int32_t block);
  void DropReference(int32_t block);
  void LinkFree(int32_t block, bool front);
  void UnlinkFree(int32_t block);

  const bool prefix_cache_;
  const int32_t sliding_window_;
  std::vector<Block> blocks_;
  int32_t free_blocks_ = 0;
  // Free blocks in the order in which they are taken: first those without content, then the cached.
  int32_t free_head_ = -1;
  int32_t free_tail_ = -1;
  PrefixId last_prefix_ = 0;
  absl::flat_hash_map<Key, int32_t, KeyHash> cached_;
  std::vector<int32_t> match_;  // blocks of the run that FindPrefix walks
};

// Copies the KV of one block to another in every layer.
void CopyKvBlock(const KvCache& cache, const KvBlockCopy& copy);

}  // namespace moesaic
