#include "tools/bench/workload.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"

namespace moesaic::bench {
namespace {

constexpr int32_t kMaxTokens = 1 << 24;

absl::StatusOr<WorkItem> ParseJsonLine(const std::string& line,
                                       const std::string& what,
                                       int32_t default_max_tokens) {
  MOESAIC_ASSIGN_OR_RETURN(const Json json, ParseJson(line, what));
  WorkItem item;
  MOESAIC_ASSIGN_OR_RETURN(const int64_t max_tokens,
                           JsonInt(json, "max_tokens", what, 1, kMaxTokens, default_max_tokens));
  item.max_tokens = static_cast<int32_t>(max_tokens);
  const Json* prompt = JsonFind(json, "prompt");
  if (prompt != nullptr && prompt->is_string()) {
    item.prompt = prompt->get<std::string>();
    return item;
  }
  std::vector<int32_t> ids;
  if (prompt != nullptr && prompt->is_array()) {
    for (const Json& id : *prompt) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) break;
      ids.push_back(static_cast<int32_t>(id.get<int64_t>()));
    }
  }
  if (ids.empty() || ids.size() != prompt->size()) {
    return absl::InvalidArgumentError(
        StrCat(what, ": prompt: expected a string or an array of token ids"));
  }
  item.prompt = std::move(ids);
  return item;
}

}  // namespace

absl::StatusOr<std::vector<WorkItem>> MakeRandomWorkload(const RandomWorkload& options) {
  if (options.input_tokens < 1 || options.output_tokens < 1) {
    return absl::InvalidArgumentError("input and output lengths: expected 1 or more");
  }
  if (!(options.range_ratio >= 0 && options.range_ratio < 1)) {
    return absl::InvalidArgumentError(
        StrCat("range ratio: got ", options.range_ratio, ", expected [0, 1)"));
  }
  std::vector<bool> excluded(std::max(options.vocab_size, 0));
  int32_t free_ids = options.vocab_size;
  for (int32_t id : options.excluded_ids) {
    if (id < 0 || id >= options.vocab_size || excluded[id]) continue;
    excluded[id] = true;
    --free_ids;
  }
  if (free_ids < 1)
    return absl::InvalidArgumentError("the model has no ordinary tokens to draw prompts from");

  std::mt19937_64 random(options.seed);
  std::uniform_int_distribution<int32_t> any_id(0, options.vocab_size - 1);
  const auto draw_id = [&] {
    int32_t id = any_id(random);
    while (excluded[id]) id = any_id(random);
    return id;
  };
  const auto draw_length = [&](int32_t length) {
    const auto low = static_cast<int32_t>(std::floor(length * (1 - options.range_ratio)));
    const auto high = static_cast<int32_t>(std::ceil(length * (1 + options.range_ratio)));
    return std::uniform_int_distribution<int32_t>(std::max(low, 1), high)(random);
  };
  std::vector<int32_t> prefix(std::max(options.shared_prefix_tokens, 0));
  std::generate(prefix.begin(), prefix.end(), draw_id);

  std::vector<WorkItem> items(options.num_prompts);
  for (WorkItem& item : items) {
    std::vector<int32_t> ids = prefix;
    const int32_t length = draw_length(options.input_tokens);
    for (int32_t i = 0; i < length; ++i) ids.push_back(draw_id());
    item.prompt = std::move(ids);
    item.max_tokens = draw_length(options.output_tokens);
  }
  return items;
}

absl::StatusOr<std::vector<WorkItem>> ReadWorkload(const std::filesystem::path& path,
                                                   int32_t max_tokens) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(StrCat("cannot read prompts file ", path.string()));
  std::vector<WorkItem> items;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty()) continue;
    if (line.front() != '{') {
      items.push_back({line, max_tokens});
      continue;
    }
    const std::string what = StrCat(path.string(), ":", number);
    MOESAIC_ASSIGN_OR_RETURN(WorkItem item, ParseJsonLine(line, what, max_tokens));
    items.push_back(std::move(item));
  }
  if (items.empty()) return absl::InvalidArgumentError(StrCat(path.string(), ": no prompts in it"));
  return items;
}

std::vector<double> ArrivalTimes(size_t count,
                                 double rate_per_s,
                                 double burstiness,
                                 uint64_t seed) {
  std::vector<double> times(count, 0.0);
  if (!std::isfinite(rate_per_s) || count == 0) return times;
  std::mt19937_64 random(seed);
  std::gamma_distribution<double> gap(burstiness, 1.0 / (rate_per_s * burstiness));
  double now = 0;
  for (double& time : times) {
    now += gap(random);
    time = now;
  }
  const double scale = now > 0 ? static_cast<double>(count) / rate_per_s / now : 0;
  for (double& time : times) time *= scale;
  return times;
}

}  // namespace moesaic::bench
