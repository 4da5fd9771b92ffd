#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "core/batch.h"
#include "kernels/kernel_table.h"
#include "memory/kv_cache.h"
#include "model/model.h"

namespace moesaic {

// A model driven without an engine: steps over explicit rows of several sequences, every row's
// logits wanted. KV blocks are handed out in a shuffled order, so that paging is exercised. For
// tests and debugging; one thread.
class ModelRunner {
 public:
  struct Options {
    ModelOptions model;
    Isa isa = DetectIsa();
    int num_threads = 2;
    int32_t kv_blocks = 1024;
  };

  static absl::StatusOr<std::unique_ptr<ModelRunner>> Load(const Options& options) {
    std::unique_ptr<ModelRunner> runner(new ModelRunner(options.num_threads));
    MOESAIC_ASSIGN_OR_RETURN(
        runner->model_,
        Model::Load(options.model, kernels::CpuKernels(options.isa), {.pool = &runner->pool_}));
    const KvShape shape = runner->model_->kv_shape();
    MOESAIC_ASSIGN_OR_RETURN(KvCache kv,
                             KvCache::Create(shape, shape.BlockBytes() * options.kv_blocks));
    runner->kv_ = std::make_unique<KvCache>(std::move(kv));
    runner->free_blocks_.resize(options.kv_blocks);
    std::iota(runner->free_blocks_.begin(), runner->free_blocks_.end(), 0);
    std::shuffle(runner->free_blocks_.begin(), runner->free_blocks_.end(), std::mt19937(1));
    return runner;
  }

  // A sequence and what it has in the KV cache.
  struct Sequence {
    std::vector<int32_t> blocks;
    int32_t context_tokens = 0;
  };
  struct Rows {
    Sequence* sequence;
    std::span<const int32_t> tokens;
  };

  // One step; returns logits [rows, vocab] of all rows in order, valid until the next step.
  absl::StatusOr<std::span<const float>> Step(std::span<const Rows> parts) {
    Batch batch;
    for (const Rows& part : parts) {
      Sequence& sequence = *part.sequence;
      const int32_t count = static_cast<int32_t>(part.tokens.size());
      const size_t blocks_needed =
          (sequence.context_tokens + count + kKvBlockTokens - 1) / kKvBlockTokens;
      while (sequence.blocks.size() < blocks_needed) {
        if (free_blocks_.empty()) return absl::ResourceExhaustedError("no KV block is left");
        sequence.blocks.push_back(free_blocks_.back());
        free_blocks_.pop_back();
      }
      batch.sequences.push_back({.first_row = batch.num_rows(),
                                 .num_rows = count,
                                 .context_tokens = sequence.context_tokens,
                                 .block_table = sequence.blocks});
      for (int32_t i = 0; i < count; ++i) {
        batch.positions.push_back(sequence.context_tokens + i);
        batch.logits_rows.push_back(batch.num_rows());
        batch.tokens.push_back(part.tokens[i]);
      }
      sequence.context_tokens += count;
    }
    model_->BeginStep(batch, *kv_);
    for (size_t block = 0; block < model_->blocks().size(); ++block) {
      MOESAIC_RETURN_IF_ERROR(model_->RunBlock(static_cast<int32_t>(block)));
    }
    return model_->logits();
  }

  // Logits [tokens, vocab] of a prompt computed alone, `chunk` rows per step (0: all at once).
  absl::StatusOr<std::vector<float>> Logits(std::span<const int32_t> tokens, int32_t chunk = 0) {
    const size_t step = chunk > 0 ? static_cast<size_t>(chunk) : tokens.size();
    Sequence sequence;
    std::vector<float> logits;
    for (size_t first = 0; first < tokens.size(); first += step) {
      const Rows rows = {&sequence, tokens.subspan(first, std::min(step, tokens.size() - first))};
      MOESAIC_ASSIGN_OR_RETURN(const std::span<const float> part, Step({&rows, 1}));
      logits.insert(logits.end(), part.begin(), part.end());
    }
    Free(sequence);
    return logits;
  }

  // The same as natural log-probabilities, normalised in double precision.
  absl::StatusOr<std::vector<float>> Logprobs(std::span<const int32_t> tokens, int32_t chunk = 0) {
    MOESAIC_ASSIGN_OR_RETURN(std::vector<float> values, Logits(tokens, chunk));
    const size_t vocab = model_->config().vocab_size;
    for (size_t row = 0; row < values.size(); row += vocab) {
      const auto begin = values.begin() + row;
      const float max = *std::max_element(begin, begin + vocab);
      double sum = 0.0;
      for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(begin[i]) - max);
      const double log_sum = max + std::log(sum);
      for (size_t i = 0; i < vocab; ++i) begin[i] = static_cast<float>(begin[i] - log_sum);
    }
    return values;
  }

  void Free(Sequence& sequence) {
    free_blocks_.insert(free_blocks_.end(), sequence.blocks.begin(), sequence.blocks.end());
    sequence = {};
  }

  Model& model() { return *model_; }
  const KvCache& kv() const { return *kv_; }

 private:
  explicit ModelRunner(int num_threads) : pool_(num_threads) {}

  ThreadPool pool_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvCache> kv_;
  std::vector<int32_t> free_blocks_;
};

}  // namespace moesaic
