#include "model/tiered_experts.h"

namespace moesaic {

TieredExperts::TieredExperts(ExpertMemory& memory, float* sums, int64_t sums_rows)
    : memory_(memory), sums_(sums), sums_rows_(sums_rows) {
  const auto experts = static_cast<size_t>(memory.keys().num_experts);
  active_.reserve(experts);
  progress_.reserve(experts);
  stripes_.resize(experts * memory.keys().stripes_per_expert);
  works_.reserve(experts);
  left_.reserve(experts);
  plan_.entries.reserve(experts);
}

void TieredExperts::Run(int32_t layer,
                        int64_t tick,
                        kernels::ExpertFfnArgs args,
                        kernels::ExpertFfnFn expert_ffn,
                        Stream& stream,
                        std::vector<RowFailure>& failures) {
  const kernels::ExpertRows& routed = args.routed;
  active_.clear();
  for (int32_t expert = 0; expert < routed.num_experts; ++expert) {
    const int32_t rows = routed.offsets[expert + 1] - routed.offsets[expert];
    if (rows > 0) active_.push_back({.expert = expert, .rows = rows});
  }
  args.stripes = stripes_.data();
  args.max_work_stripes = MaxWorkStripes(args.stripes_per_expert);
  const std::span<const ExpertMemory::ActiveExpert> active(active_);
  for (size_t begin = 0; begin < active.size();) {
    const size_t end = GroupEnd(begin, routed);
    const auto group = active.subspan(begin, end - begin);
    memory_.BeginLayer(layer, tick, group);
    if (end < active.size()) {
      PrefetchGroup(layer, tick, active.subspan(end, GroupEnd(end, routed) - end));
    }
    RunGroup(group, args, expert_ffn, stream, failures);
    memory_.EndLayer();
    begin = end;
  }
}

size_t TieredExperts::GroupEnd(size_t begin, const kernels::ExpertRows& routed) const {
  const int64_t first_entry = routed.offsets[active_[begin].expert];
  size_t end = begin + 1;
  while (end < active_.size() &&
         routed.offsets[active_[end].expert + 1] - first_entry <= sums_rows_) {
    ++end;
  }
  return end;
}

void TieredExperts::PrefetchGroup(int32_t layer,
                                  int64_t tick,
                                  std::span<const ExpertMemory::ActiveExpert> group) {
  plan_.entries.clear();
  for (const ExpertMemory::ActiveExpert& expert : group) {
    plan_.entries.push_back({.expert = {.layer = layer, .index = expert.expert}, .tick = tick});
  }
  memory_.Prefetch(plan_);
}

void TieredExperts::RunGroup(std::span<const ExpertMemory::ActiveExpert> group,
                             kernels::ExpertFfnArgs& args,
                             kernels::ExpertFfnFn expert_ffn,
                             Stream& stream,
                             std::vector<RowFailure>& failures) {
  const int64_t first_entry = args.routed.offsets[group.front().expert];
  progress_.clear();
  for (const ExpertMemory::ActiveExpert& expert : group) {
    const int64_t row = args.routed.offsets[expert.expert] - first_entry;
    progress_.push_back({.sums = sums_ + row * args.shape.hidden});
  }
  next_to_add_ = 0;
  while (true) {
    const absl::StatusOr<std::span<const ExpertMemory::ReadyStripes>> ready = memory_.WaitReady();
    if (!ready.ok()) {
      FailExperts(group, ready.status(), args.routed, failures);
      continue;
    }
    if (ready->empty()) break;
    for (const ExpertMemory::ReadyStripes& stripes : *ready) {
      const int64_t first =
          group[stripes.index].expert * args.stripes_per_expert + stripes.first_stripe;
      std::copy_n(stripes.pointers, stripes.num_stripes, stripes_.begin() + first);
    }
    left_.assign(ready->begin(), ready->end());
    while (!left_.empty()) RunReady(group, left_, args, expert_ffn, stream);
    memory_.Consume(*ready);
  }
  // Experts that were complete, but behind one that failed.
  RunReady(group, {}, args, expert_ffn, stream);
}

void TieredExperts::RunReady(std::span<const ExpertMemory::ActiveExpert> group,
                             std::span<const ExpertMemory::ReadyStripes> ready,
                             kernels::ExpertFfnArgs& args,
                             kernels::ExpertFfnFn expert_ffn,
                             Stream& stream) {
  works_.clear();
  size_t kept = 0;
  size_t at = 0;
  const auto num_stripes = static_cast<int32_t>(args.stripes_per_expert);
  for (size_t i = next_to_add_; i < group.size(); ++i) {
    Progress& expert = progress_[i];
    const bool next = i == next_to_add_;
    kernels::ExpertWork work = {.expert = group[i].expert, .first_stripe = expert.stripes_done};
    if (at < ready.size() && ready[at].index == static_cast<int32_t>(i)) {
      ExpertMemory::ReadyStripes stripes = ready[at++];
      work.num_stripes =
          static_cast<int32_t>(std::min<int64_t>(stripes.num_stripes, args.max_work_stripes));
      expert.stripes_done += work.num_stripes;
      if (work.num_stripes < stripes.num_stripes) {
        stripes.first_stripe += work.num_stripes;
        stripes.num_stripes -= work.num_stripes;
        left_[kept++] = stripes;
      }
    }
    const bool complete = expert.stripes_done == num_stripes;
    work.add_to_output = next && complete && !expert.failed;
    if (work.num_stripes < num_stripes || !work.add_to_output) work.sums = expert.sums;
    if (next && (complete || expert.failed)) ++next_to_add_;
    if (work.num_stripes > 0 || work.add_to_output) works_.push_back(work);
    // Nothing else can have its turn.
    if (at == ready.size() && i >= next_to_add_) break;
  }
  left_.resize(kept);
  if (works_.empty()) return;
  args.works = works_.data();
  args.num_works = static_cast<int64_t>(works_.size());
  expert_ffn(args, stream);
}

void TieredExperts::FailExperts(std::span<const ExpertMemory::ActiveExpert> group,
                                const absl::Status& status,
                                const kernels::ExpertRows& routed,
                                std::vector<RowFailure>& failures) {
  for (const int32_t index : memory_.failed()) {
    if (progress_[index].failed) continue;
    progress_[index].failed = true;
    const int32_t expert = group[index].expert;
    for (int32_t entry = routed.offsets[expert]; entry < routed.offsets[expert + 1]; ++entry) {
      failures.push_back({.row = routed.rows[entry], .status = status});
    }
  }
}

}  // namespace moesaic
