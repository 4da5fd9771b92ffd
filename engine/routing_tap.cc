#include "engine/routing_tap.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/log.h"
#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {

absl::StatusOr<std::unique_ptr<RoutingTap>> RoutingTap::Create(const RoutingTapOptions& options,
                                                               Model& model) {
  std::unique_ptr<RoutingTap> tap(new RoutingTap(model, options.oracle_layers));
  if (!options.replay.empty()) MOESAIC_RETURN_IF_ERROR(tap->LoadReplay(options.replay));
  if (!options.record.empty()) {
    const ModelConfig& config = model.config();
    MOESAIC_ASSIGN_OR_RETURN(
        tap->writer_,
        RoutingTraceWriter::Create(options.record, {.model = config.architecture,
                                                    .num_layers = model.num_expert_layers(),
                                                    .num_experts = config.num_experts,
                                                    .top_k = config.top_k,
                                                    .has_weights = true}));
  }
  return tap;
}

RoutingTap::~RoutingTap() {
  if (writer_ == nullptr) return;
  const absl::Status status = writer_->Finish();
  if (!status.ok()) spdlog::error("recording routing: {}", std::string(status.message()));
}

absl::Status RoutingTap::LoadReplay(const std::filesystem::path& path) {
  MOESAIC_ASSIGN_OR_RETURN(trace_, ReadRoutingTrace(path));
  const ModelConfig& config = model_.config();
  const RoutingTraceHeader& header = trace_.header;
  if (header.num_experts != config.num_experts || header.top_k != config.top_k ||
      header.num_layers < model_.num_expert_layers()) {
    return absl::InvalidArgumentError(
        StrCat(path.string(), ": a trace of ", header.num_layers, " layers of ", header.num_experts,
               " experts, top-", header.top_k, "; the model has ", model_.num_expert_layers(),
               " layers of ", config.num_experts, ", top-", config.top_k));
  }
  rows_of_.resize(header.num_layers);
  for (auto& requests : rows_of_) requests.resize(trace_.requests.size());
  for (const RoutingTrace::Record& record : trace_.records) {
    auto row = static_cast<int64_t>(record.first_row);
    for (const RoutingRun& run : trace_.Runs(record)) {
      std::vector<int64_t>& rows = rows_of_[record.layer][run.request];
      // Positions that a trace leaves out would be empty rows: it must begin at 0 and go on.
      if (run.first_position > static_cast<int32_t>(rows.size())) {
        return absl::InvalidArgumentError(StrCat(
            path.string(), ": request ", trace_.requests[run.request].id, " has position ",
            run.first_position, " of layer ", record.layer, " after ", rows.size(),
            " positions; a trace to replay has every one (record it with --no-prefix-cache)"));
      }
      rows.resize(std::max<size_t>(rows.size(), run.first_position + run.num_rows));
      for (int32_t i = 0; i < run.num_rows; ++i) rows[run.first_position + i] = row++;
    }
  }
  for (int32_t layer = 0; layer < model_.num_expert_layers(); ++layer) {
    for (size_t request = 0; request < trace_.requests.size(); ++request) {
      if (!rows_of_[layer][request].empty()) continue;
      return absl::InvalidArgumentError(StrCat(path.string(), ": request ",
                                               trace_.requests[request].id,
                                               " has no rows of layer ", layer));
    }
  }
  if (trace_.requests.empty()) {
    return absl::InvalidArgumentError(StrCat(path.string(), ": the trace holds no request"));
  }
  planned_.resize(header.num_experts);
  spdlog::warn("routing is replayed from {}: answers are not the model's", path.string());
  return absl::OkStatus();
}

std::span<const uint16_t> RoutingTap::Replayed(int32_t layer,
                                               int64_t request,
                                               int64_t position) const {
  const auto& requests = rows_of_[layer];
  const std::vector<int64_t>& rows = requests[request % requests.size()];
  const auto top_k = static_cast<size_t>(trace_.header.top_k);
  return std::span(trace_.experts).subspan(rows[position % rows.size()] * top_k, top_k);
}

void RoutingTap::BeginStep(const Batch& batch) { batch_ = &batch; }

void RoutingTap::OnGate(int32_t layer,
                        int64_t tick,
                        std::span<int32_t> experts,
                        std::span<float> weights) {
  if (replaying()) {
    Replay(layer, experts);
    if (oracle_layers_ > 0 && model_.expert_memory() != nullptr) PrefetchAhead(layer, tick);
  }
  if (writer_ != nullptr) Record(layer, tick, experts, weights);
}

void RoutingTap::Replay(int32_t layer, std::span<int32_t> experts) const {
  auto out = experts.begin();
  for (const BatchSequence& sequence : batch_->sequences) {
    for (int32_t i = 0; i < sequence.num_rows; ++i) {
      const auto row = Replayed(layer, sequence.request, sequence.context_tokens + i);
      out = std::copy(row.begin(), row.end(), out);
    }
  }
}

void RoutingTap::Record(int32_t layer,
                        int64_t tick,
                        std::span<int32_t> experts,
                        std::span<float> weights) {
  runs_.clear();
  for (const BatchSequence& sequence : batch_->sequences) {
    runs_.push_back({.request = static_cast<uint64_t>(sequence.request),
                     .first_position = sequence.context_tokens,
                     .num_rows = sequence.num_rows});
  }
  const absl::Status status =
      writer_->Append(tick / model_.num_expert_layers(), layer, runs_, experts, weights);
  if (status.ok()) return;
  spdlog::error("recording routing ends: {}", std::string(status.message()));
  writer_ = nullptr;
}

void RoutingTap::PrefetchAhead(int32_t layer, int64_t tick) {
  const int32_t num_layers = model_.num_expert_layers();
  plan_.entries.clear();
  std::fill(planned_.begin(), planned_.end(), -1);
  for (int32_t ahead = 1; ahead <= oracle_layers_; ++ahead) {
    const int32_t target = (layer + ahead) % num_layers;
    const int32_t steps = (layer + ahead) / num_layers;
    const auto plan = [&](int64_t request, int64_t position) {
      for (const uint16_t expert : Replayed(target, request, position)) {
        if (planned_[expert] == tick + ahead) continue;
        planned_[expert] = tick + ahead;
        plan_.entries.push_back(
            {.expert = {.layer = target, .index = expert},
             .prefetch_class = ahead == 1 ? PrefetchClass::kNextLayer : PrefetchClass::kLater,
             .tick = tick + ahead});
      }
    };
    for (const BatchSequence& sequence : batch_->sequences) {
      const int32_t end = sequence.context_tokens + sequence.num_rows;
      // A later step has one row of each sequence.
      if (steps > 0) {
        plan(sequence.request, end + steps - 1);
        continue;
      }
      for (int32_t p = sequence.context_tokens; p < end; ++p) plan(sequence.request, p);
    }
  }
  model_.expert_memory()->CancelPrefetches();
  model_.expert_memory()->Prefetch(plan_);
}

}  // namespace moesaic
