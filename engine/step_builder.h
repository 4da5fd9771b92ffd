#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "batcher/batcher.h"
#include "core/batch.h"
#include "engine/sequence.h"
#include "memory/kv_block_manager.h"
#include "memory/kv_cache.h"

namespace moesaic {

// A sequence in the step and where its logits are.
struct ScheduledSequence {
  Sequence* sequence = nullptr;
  int32_t num_rows = 0;
  int32_t first_logits = 0;  // index into Batch::logits_rows
  int32_t num_logits = 0;
};

// Position from which every row of the sequence needs logits: its last token's, or the first prompt
// token whose log-probabilities are still to be collected. A cached prefix may stand in for the
// tokens before it.
int32_t LogitsFrom(const Sequence& sequence);
// The batcher's view of a running sequence.
SequenceView ViewOf(const Sequence& sequence, const KvBlockManager& blocks);

// Turns planned sequences into the packed rows of one step, and makes their KV positions writable.
// Owner and thread: engine. Buffers keep their capacity from step to step.
class StepBuilder {
 public:
  StepBuilder(KvBlockManager& blocks, const KvCache& cache) : blocks_(blocks), cache_(cache) {}

  void Clear();
  // Adds the next `num_rows` tokens of `sequence`; the plan saw to it that blocks are free.
  void Add(Sequence& sequence, int32_t num_rows);
  // Copies the shared blocks that are about to be written. Called once, after the last Add.
  void CopySharedBlocks();

  const Batch& batch() const { return batch_; }
  std::span<const ScheduledSequence> scheduled() const { return scheduled_; }

 private:
  KvBlockManager& blocks_;
  const KvCache& cache_;
  Batch batch_;
  std::vector<ScheduledSequence> scheduled_;
  std::vector<KvBlockCopy> copies_;
};

}  // namespace moesaic
