#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/dtype.h"
#include "base/stream.h"
#include "core/batch.h"
#include "kernels/kernel_table.h"
#include "memory/expert_memory.h"
#include "memory/expert_policy.h"
#include "memory/kv_cache.h"
#include "model/model_config.h"

namespace moesaic {

enum class LoadFormat { kAuto, kDummy };  // kDummy: seeded random weights from config.json alone
enum class DTypeChoice { kAuto, kBFloat16, kFloat32 };

struct ModelOptions {
  std::filesystem::path path;
  DTypeChoice dtype = DTypeChoice::kAuto;
  LoadFormat load_format = LoadFormat::kAuto;
  uint64_t dummy_seed = 0;
  int32_t max_batch_tokens = 2048;  // rows of the largest step
  int32_t max_logits_rows = 2048;   // logits of the largest step
  int32_t max_model_len = 0;        // positions served; 0: the config's

  // Where the routed experts are kept packed on the disk (made if need be, memory/pack_writer.h);
  // empty: in RAM alone, packed at every start.
  std::filesystem::path pack_dir = {};
  int64_t host_memory = 0;  // with pack_dir: bytes of experts in RAM, read without the disk
  // With pack_dir: bytes of the slots that experts run from (memory/expert_memory.h); 0:
  // host_memory holds them all and they run from there.
  int64_t expert_memory = 0;
  ExpertPolicyKind expert_policy = ExpertPolicyKind::kLfu;
  const UseForecast* use_forecast = nullptr;  // of policies that need one; outlives the model

  int32_t Positions(const ModelConfig& config) const {
    return max_model_len > 0 ? max_model_len : config.max_positions;
  }
};

// The KV cache of a model of `config` that computes in `dtype`.
inline KvShape KvShapeOf(const ModelConfig& config, DType dtype) {
  return {.num_layers = config.num_layers,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .dtype = dtype};
}

// What is known of a block before any request: its place in the order and which layer it belongs
// to.
enum class BlockKind : uint8_t { kEmbedding, kAttention, kMoe, kHead };
struct BlockInfo {
  BlockKind kind;
  int32_t layer = -1;
};

// A row of a step whose result is missing something, and why.
struct RowFailure {
  int32_t row = 0;
  absl::Status status;
};

// Sees every gate's choice before it is carried out: to record it, to prefetch by it, or in
// benchmarks to replace it. Thread: the executor's.
class RoutingHook {
 public:
  virtual ~RoutingHook() = default;
  // [rows, top_k] of one layer; the layer numbered among those with routed experts, the tick
  // step * num_layers + layer. Distinct experts in each row.
  virtual void OnGate(int32_t layer,
                      int64_t tick,
                      std::span<int32_t> experts,
                      std::span<float> weights) = 0;
};

// Counters of what the last step touched, for the memory-bandwidth limit of benchmarks.
struct StepCounters {
  int64_t dense_bytes = 0;
  int64_t expert_bytes = 0;  // distinct experts of the step
  int64_t kv_bytes = 0;
};

// A decoder-only MoE network as numbered static blocks over packed rows. Loaded once; buffers for
// the largest step are allocated at load, none per step.
//
// Owner: engine. Thread: the executor's, one step at a time. `kernels` and the stream's pool must
// outlive it.
class Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Load(const ModelOptions& options,
                                                     const kernels::KernelTable& kernels,
                                                     Stream stream);
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  virtual DType dtype() const = 0;
  virtual KvShape kv_shape() const = 0;
  virtual int64_t packed_bytes() const = 0;

  // Blocks in execution order: embedding, then attention and MoE of each layer, then the head.
  virtual std::span<const BlockInfo> blocks() const = 0;

  // Starts a step over `batch` (rows <= max_batch_tokens, tokens in the vocabulary; the engine
  // guarantees both). `batch` and `kv` must stay unchanged until the last block has run.
  virtual void BeginStep(const Batch& batch, const KvCache& kv) = 0;
  virtual absl::Status RunBlock(int32_t block) = 0;

  // After the head: [batch.logits_rows.size(), vocab_size] float32, valid until the next BeginStep.
  virtual std::span<const float> logits() const = 0;
  virtual StepCounters counters() const = 0;
  // Rows of the last step whose experts could not be brought; a row may be named twice.
  virtual std::span<const RowFailure> failures() const = 0;

  // Layers with routed experts.
  virtual int32_t num_expert_layers() const = 0;
  // Null when every expert is in RAM.
  virtual ExpertMemory* expert_memory() = 0;
  // `hook` (null: none) outlives its use.
  virtual void SetRoutingHook(RoutingHook* hook) = 0;
};

}  // namespace moesaic
