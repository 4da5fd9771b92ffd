#include "tools/bench/optimum_lp.h"

#ifdef MOESAIC_HIGHS
#include <interfaces/highs_c_api.h>
#endif

#include <algorithm>
#include <memory>
#include <vector>

#include "base/str_cat.h"

namespace moesaic::bench {

#ifdef MOESAIC_HIGHS

absl::StatusOr<double> LeastBytes(const TraceUses& uses,
                                  std::span<const int64_t> layer_bytes,
                                  int64_t budget_bytes) {
  // In units of the largest expert, for the solver's tolerances.
  const auto unit = static_cast<double>(*std::max_element(layer_bytes.begin(), layer_bytes.end()));
  const auto num_gaps = static_cast<HighsInt>(std::max<int64_t>(uses.num_ticks() - 1, 0));
  std::vector<double> cost;
  std::vector<double> upper;
  std::vector<HighsInt> start;
  std::vector<HighsInt> row;
  std::vector<double> value;
  double total = 0;
  const auto add_column = [&](double its_cost, double its_upper, double size, HighsInt first,
                              HighsInt last) {
    cost.push_back(its_cost);
    upper.push_back(its_upper);
    start.push_back(static_cast<HighsInt>(row.size()));
    // The rows are differences of the capacity rows of neighbouring gaps, so that a column has two
    // entries instead of one per gap that it spans.
    row.push_back(first);
    value.push_back(size);
    if (last < num_gaps) {
      row.push_back(last);
      value.push_back(-size);
    }
  };
  const int32_t num_experts = uses.shape().num_experts;
  for (int32_t key = 0; key < uses.shape().num_layers * num_experts; ++key) {
    const double size = static_cast<double>(layer_bytes[key / num_experts]) / unit;
    const std::vector<int64_t>& ticks = uses.TicksOf(key);
    total += size * static_cast<double>(ticks.size());
    for (size_t i = 1; i < ticks.size(); ++i) {
      add_column(size, 1, size, static_cast<HighsInt>(ticks[i - 1]),
                 static_cast<HighsInt>(ticks[i]));
    }
  }
  if (cost.empty()) return total * unit;
  const double budget = static_cast<double>(budget_bytes) / unit;
  for (HighsInt gap = 0; gap < num_gaps; ++gap) add_column(0, budget, 1, gap, gap + 1);
  std::vector<double> bound(num_gaps, 0);
  bound[0] = budget;
  const std::vector<double> lower(cost.size(), 0);

  const std::unique_ptr<void, decltype(&Highs_destroy)> highs(Highs_create(), &Highs_destroy);
  Highs_setBoolOptionValue(highs.get(), "output_flag", 0);
  const HighsInt passed = Highs_passLp(
      highs.get(), static_cast<HighsInt>(cost.size()), num_gaps, static_cast<HighsInt>(row.size()),
      kHighsMatrixFormatColwise, kHighsObjSenseMaximize, 0, cost.data(), lower.data(), upper.data(),
      bound.data(), bound.data(), start.data(), row.data(), value.data());
  if (passed == kHighsStatusError || Highs_run(highs.get()) == kHighsStatusError ||
      Highs_getModelStatus(highs.get()) != kHighsModelStatusOptimal) {
    return absl::InternalError(StrCat("HiGHS found no optimum of ", cost.size(),
                                      " variables: model status ",
                                      Highs_getModelStatus(highs.get())));
  }
  return (total - Highs_getObjectiveValue(highs.get())) * unit;
}

#else

absl::StatusOr<double> LeastBytes(const TraceUses&, std::span<const int64_t>, int64_t) {
  return absl::FailedPreconditionError(
      "moesaic-bench was built without HiGHS: run scripts/bootstrap.sh solver, configure and build "
      "again");
}

#endif

}  // namespace moesaic::bench
