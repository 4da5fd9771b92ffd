#include "tests/engine/fake_model.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "base/status_macros.h"

namespace moesaic {
namespace {

uint64_t Mix(uint64_t value) {
  value ^= value >> 30;
  value *= 0xbf58476d1ce4e5b9;
  value ^= value >> 27;
  value *= 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

int32_t FirstVisible(int32_t sliding_window, int32_t position) {
  return sliding_window == 0 ? 0 : std::max(0, position - sliding_window + 1);
}

}  // namespace

FakeModel::FakeModel(const Options& options) : options_(options) {
  config_.architecture = "Fake";
  config_.vocab_size = options.vocab_size;
  config_.num_layers = 1;
  config_.max_positions = options.max_positions;
  config_.sliding_window = {options.sliding_window};
  config_.eos_token_ids = options.eos_token_ids;
  blocks_ = {{.kind = BlockKind::kEmbedding, .layer = -1},
             {.kind = BlockKind::kAttention, .layer = 0},
             {.kind = BlockKind::kHead, .layer = -1}};
}

KvShape FakeModel::kv_shape() const {
  return {.num_layers = 1, .num_kv_heads = 1, .head_dim = 1, .dtype = DType::kFloat32};
}

std::vector<float> FakeModel::Logits(const Options& options, std::span<const int32_t> history) {
  uint64_t hash = 1;
  const int32_t last = static_cast<int32_t>(history.size()) - 1;
  for (int32_t i = FirstVisible(options.sliding_window, last); i <= last; ++i) {
    hash = Mix(hash * 31 + static_cast<uint64_t>(history[i]) + 1);
  }
  std::vector<float> logits(options.vocab_size);
  for (int32_t token = 0; token < options.vocab_size; ++token) {
    logits[token] = static_cast<float>(Mix(hash + static_cast<uint64_t>(token)) >> 40) * 0x1p-21f;
  }
  return logits;
}

std::vector<int32_t> FakeModel::Greedy(const Options& options,
                                       std::vector<int32_t> prompt,
                                       int32_t count) {
  std::vector<int32_t> output;
  for (int32_t i = 0; i < count; ++i) {
    const std::vector<float> logits = Logits(options, prompt);
    output.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    prompt.push_back(output.back());
  }
  return output;
}

void FakeModel::BeginStep(const Batch& batch, const KvCache& kv) {
  batch_ = &batch;
  kv_ = &kv;
}

absl::Status FakeModel::RunBlock(int32_t block) {
  switch (blocks_[block].kind) {
    case BlockKind::kEmbedding:
      CheckBatch();
      return on_step ? on_step(*batch_) : absl::OkStatus();
    case BlockKind::kAttention:
      WriteKv();
      return absl::OkStatus();
    case BlockKind::kMoe:
    case BlockKind::kHead:
      break;
  }
  logits_.clear();
  for (int32_t row : batch_->logits_rows) {
    for (const BatchSequence& sequence : batch_->sequences) {
      if (row < sequence.first_row || row >= sequence.first_row + sequence.num_rows) continue;
      const std::vector<float> logits =
          Logits(options_, ReadHistory(sequence, batch_->positions[row]));
      logits_.insert(logits_.end(), logits.begin(), logits.end());
    }
  }
  return absl::OkStatus();
}

void FakeModel::CheckBatch() const {
  EXPECT_GT(batch_->num_rows(), 0);
  EXPECT_EQ(batch_->positions.size(), batch_->tokens.size());
  EXPECT_TRUE(std::is_sorted(batch_->logits_rows.begin(), batch_->logits_rows.end()));
  std::set<int32_t> written;
  int32_t next_row = 0;
  for (const BatchSequence& sequence : batch_->sequences) {
    EXPECT_EQ(sequence.first_row, next_row);
    next_row += sequence.num_rows;
    for (int32_t i = 0; i < sequence.num_rows; ++i) {
      const int32_t position = sequence.context_tokens + i;
      EXPECT_EQ(batch_->positions[sequence.first_row + i], position);
      EXPECT_LT(position, options_.max_positions);
      const int32_t block = sequence.block_table[position / kKvBlockTokens];
      EXPECT_GE(block, 0);
      EXPECT_LT(block, kv_->num_blocks());
      EXPECT_TRUE(written.insert(block * kKvBlockTokens + position % kKvBlockTokens).second)
          << "two rows write one KV position";
    }
  }
  EXPECT_EQ(next_row, batch_->num_rows());
}

void FakeModel::WriteKv() const {
  for (const BatchSequence& sequence : batch_->sequences) {
    for (int32_t i = 0; i < sequence.num_rows; ++i) {
      const int32_t position = sequence.context_tokens + i;
      const int64_t slot =
          int64_t{sequence.block_table[position / kKvBlockTokens]} * kKvBlockTokens +
          position % kKvBlockTokens;
      static_cast<float*>(kv_->k(0))[slot] =
          static_cast<float>(batch_->tokens[sequence.first_row + i]);
      static_cast<float*>(kv_->v(0))[slot] = static_cast<float>(position);
    }
  }
}

std::vector<int32_t> FakeModel::ReadHistory(const BatchSequence& sequence, int32_t position) const {
  // What lies behind the window has no part in the logits.
  std::vector<int32_t> history(position + 1, 0);
  for (int32_t i = FirstVisible(options_.sliding_window, position); i <= position; ++i) {
    const int32_t block = sequence.block_table[i / kKvBlockTokens];
    EXPECT_GE(block, 0) << "position " << i << " was released too early";
    if (block < 0) continue;
    const int64_t slot = int64_t{block} * kKvBlockTokens + i % kKvBlockTokens;
    EXPECT_EQ(static_cast<float*>(kv_->v(0))[slot], static_cast<float>(i));
    history[i] = static_cast<int32_t>(static_cast<float*>(kv_->k(0))[slot]);
  }
  return history;
}

}  // namespace moesaic
