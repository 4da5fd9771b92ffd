#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/batch.h"
#include "core/routing_trace.h"
#include "core/routing_trace_writer.h"
#include "memory/expert_memory.h"
#include "model/model.h"

namespace moesaic {

struct RoutingTapOptions {
  std::filesystem::path record = {};  // empty: not recorded
  // Benchmarks only: gates choose as in this trace, request by request in the order of arrival and
  // position by position, from the start again where it ends. Empty: as the model says.
  std::filesystem::path replay = {};
  // With `replay`: prefetch what this many layers ahead will ask for, as only a replay can know.
  int32_t oracle_layers = 0;

  bool enabled() const { return !record.empty() || !replay.empty(); }
};

// Between the gates and the experts: records what the gates choose, or replaces it by a trace.
//
// Owner: the engine. Thread: the executor's.
class RoutingTap final : public RoutingHook {
 public:
  // `model` outlives the tap. InvalidArgument when a trace to replay was made for another shape.
  static absl::StatusOr<std::unique_ptr<RoutingTap>> Create(const RoutingTapOptions& options,
                                                            Model& model);
  // Ends the recording.
  ~RoutingTap() override;

  bool replaying() const { return !rows_of_.empty(); }

  // Before the step's blocks; `batch` stays until the last has run.
  void BeginStep(const Batch& batch);
  void OnGate(int32_t layer,
              int64_t tick,
              std::span<int32_t> experts,
              std::span<float> weights) override;

 private:
  RoutingTap(Model& model, int32_t oracle_layers) : model_(model), oracle_layers_(oracle_layers) {}

  absl::Status LoadReplay(const std::filesystem::path& path);
  // What the trace says for a position of the request that arrived as number `request`.
  std::span<const uint16_t> Replayed(int32_t layer, int64_t request, int64_t position) const;
  void Replay(int32_t layer, std::span<int32_t> experts) const;
  void Record(int32_t layer, int64_t tick, std::span<int32_t> experts, std::span<float> weights);
  void PrefetchAhead(int32_t layer, int64_t tick);

  Model& model_;
  const int32_t oracle_layers_;
  const Batch* batch_ = nullptr;

  std::unique_ptr<RoutingTraceWriter> writer_;
  std::vector<RoutingRun> runs_;

  RoutingTrace trace_;
  // [layer][request of the trace][position]: the row in trace_.experts.
  std::vector<std::vector<std::vector<int64_t>>> rows_of_;
  PrefetchPlan plan_;
  std::vector<int64_t> planned_;  // by expert of a layer: the tick it was last planned for
};

}  // namespace moesaic
