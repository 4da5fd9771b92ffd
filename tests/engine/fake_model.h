#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/model.h"

namespace moesaic {

// A model whose logits are a hash of the token history that it reads back from the paged KV cache,
// so that any error of block tables, reuse, copies or positions changes the tokens. Its KV is the
// token (K) and the position (V).
class FakeModel final : public Model {
 public:
  struct Options {
    int32_t vocab_size = 64;
    int32_t max_positions = 4096;
    int32_t sliding_window = 0;
    std::vector<int32_t> eos_token_ids;
  };

  explicit FakeModel(const Options& options);

  const ModelConfig& config() const override { return config_; }
  DType dtype() const override { return DType::kFloat32; }
  KvShape kv_shape() const override;
  int64_t packed_bytes() const override { return 0; }
  std::span<const BlockInfo> blocks() const override { return blocks_; }
  void BeginStep(const Batch& batch, const KvCache& kv) override;
  absl::Status RunBlock(int32_t block) override;
  std::span<const float> logits() const override { return logits_; }
  StepCounters counters() const override { return {}; }
  std::span<const RowFailure> failures() const override { return failed_rows; }
  int32_t num_expert_layers() const override { return 0; }
  ExpertMemory* expert_memory() override { return nullptr; }
  void SetRoutingHook(RoutingHook*) override {}

  // Called at the start of each step on the engine thread; an error fails the step.
  std::function<absl::Status(const Batch&)> on_step;
  // What failures() answers; for on_step to set.
  std::vector<RowFailure> failed_rows;

  // The logits that follow `history`, computed without any KV cache.
  static std::vector<float> Logits(const Options& options, std::span<const int32_t> history);
  // What greedy decoding gives: `count` tokens after `prompt`.
  static std::vector<int32_t> Greedy(const Options& options,
                                     std::vector<int32_t> prompt,
                                     int32_t count);

 private:
  void CheckBatch() const;
  void WriteKv() const;
  std::vector<int32_t> ReadHistory(const BatchSequence& sequence, int32_t position) const;

  const Options options_;
  ModelConfig config_;
  std::vector<BlockInfo> blocks_;
  const Batch* batch_ = nullptr;
  const KvCache* kv_ = nullptr;
  std::vector<float> logits_;
};

}  // namespace moesaic
