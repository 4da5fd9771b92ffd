#include "engine/step_builder.h"

#include <algorithm>

namespace moesaic {

int32_t LogitsFrom(const Sequence& sequence) {
  const ActiveRequest& request = *sequence.request;
  if (request.prompt_logprobs_pending())
    return static_cast<int32_t>(request.prompt_logprobs.size());
  return sequence.num_tokens() - 1;
}

SequenceView ViewOf(const Sequence& sequence, const KvBlockManager& blocks) {
  return {.num_tokens = sequence.num_tokens(),
          .computed_tokens = sequence.computed_tokens,
          .logits_from = LogitsFrom(sequence),
          .blocks_held = static_cast<int32_t>(sequence.kv.blocks.size()),
          .extra_blocks = blocks.IsSharedPartly(sequence.kv, sequence.computed_tokens) ? 1 : 0,
          .slots = sequence.request->forked() ? 1 : sequence.request->n()};
}

void StepBuilder::Clear() {
  batch_.tokens.clear();
  batch_.positions.clear();
  batch_.sequences.clear();
  batch_.logits_rows.clear();
  scheduled_.clear();
  copies_.clear();
}

void StepBuilder::Add(Sequence& sequence, int32_t num_rows) {
  const int32_t begin = sequence.computed_tokens;
  const int32_t end = begin + num_rows;
  blocks_.Reserve(sequence.kv, begin, end, copies_);

  const int32_t first_row = batch_.num_rows();
  batch_.tokens.insert(batch_.tokens.end(), sequence.tokens.begin() + begin,
                       sequence.tokens.begin() + end);
  for (int32_t position = begin; position < end; ++position) batch_.positions.push_back(position);
  batch_.sequences.push_back({.first_row = first_row,
                              .num_rows = num_rows,
                              .context_tokens = begin,
                              .request = static_cast<int64_t>(sequence.request->arrival_order) - 1,
                              .block_table = sequence.kv.blocks});

  const int32_t first_logits = static_cast<int32_t>(batch_.logits_rows.size());
  for (int32_t position = std::max(begin, LogitsFrom(sequence)); position < end; ++position) {
    batch_.logits_rows.push_back(first_row + position - begin);
  }
  scheduled_.push_back(
      {.sequence = &sequence,
       .num_rows = num_rows,
       .first_logits = first_logits,
       .num_logits = static_cast<int32_t>(batch_.logits_rows.size()) - first_logits});
}

void StepBuilder::CopySharedBlocks() {
  for (const KvBlockCopy& copy : copies_) CopyKvBlock(cache_, copy);
}

}  // namespace moesaic
