#include <cmath>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"
#include "memory/stripe_layout.h"
#include "tools/bench/commands.h"
#include "tools/bench/model_profile.h"
#include "tools/bench/optimum_lp.h"
#include "tools/bench/replay.h"
#include "tools/bench/transitions.h"

namespace moesaic::bench {
namespace {

struct Flags {
  std::string trace;
  std::string model = "benchmarks/models/olmoe-1b-7b.json";
  std::vector<std::string> policies = {"on-demand", "fifo", "lru", "lfu", "belady"};
  std::vector<std::string> budgets = {"12.5%", "25%", "50%", "75%"};
  double link_gb_s = 25;
  double memory_gb_s = 400;
  double tflops = 50;
  std::string prefetch = "none";
  int32_t lookahead = 4;
  int64_t steps = 0;
  bool lp = false;
  bool transitions = false;
  bool json = false;
};

struct Row {
  std::string policy;
  std::string budget;
  int64_t budget_bytes = 0;
  ReplayResult result;
  int64_t optimum_bytes = 0;
  std::optional<double> lp_bytes;
};

// "25%" of `all` bytes, or a number of bytes with KiB, MiB or GiB.
absl::StatusOr<int64_t> ParseBudget(const std::string& text, int64_t all) {
  static constexpr std::pair<const char*, double> kUnits[] = {
      {"%", 0}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"", 1}};
  for (const auto& [suffix, unit] : kUnits) {
    if (!absl::EndsWith(text, suffix)) continue;
    double number = 0;
    const std::string digits = text.substr(0, text.size() - std::string_view(suffix).size());
    if (!absl::SimpleAtod(digits, &number) || !(number > 0)) break;
    const double bytes = unit == 0 ? number / 100 * static_cast<double>(all) : number * unit;
    return static_cast<int64_t>(std::min(bytes, static_cast<double>(all)));
  }
  return absl::InvalidArgumentError(
      StrCat("--budget: got '", text, "', expected a size such as 25%, 512MiB or 2GiB"));
}

ReplayTimes MakeTimes(const ModelProfile& model, const Flags& flags) {
  const StripeLayout layout = ChooseStripeLayout(
      {.dtype = DType::kBFloat16, .hidden = model.hidden, .units = model.expert_units});
  const auto weights = static_cast<double>(3 * layout.units_per_stripe * model.hidden);
  ReplayTimes times;
  times.stripe_bytes = 3 * layout.units_per_stripe * model.hidden * model.bytes_per_weight;
  times.stripes_per_expert = static_cast<int32_t>(layout.num_stripes);
  times.dense_layer_s = static_cast<double>(model.dense_weights() * model.bytes_per_weight) /
                        (flags.memory_gb_s * 1e9);
  times.stripe_s = static_cast<double>(times.stripe_bytes) / (flags.memory_gb_s * 1e9);
  times.stripe_row_s = 2 * weights / (flags.tflops * 1e12);
  times.link_bytes_per_s = flags.link_gb_s * 1e9;
  return times;
}

Json RowJson(const Row& row, const ReplayTimes& times) {
  const ReplayResult& result = row.result;
  Json json = {{"policy", row.policy},
               {"budget", row.budget},
               {"budget_bytes", row.budget_bytes},
               {"demand_experts", result.demand_experts},
               {"loaded_stripes", result.loaded_stripes()},
               {"loaded_bytes", result.loaded_stripes() * times.stripe_bytes},
               {"prefetched_bytes", result.prefetched_stripes * times.stripe_bytes},
               {"wasted_bytes", result.wasted_stripes * times.stripe_bytes},
               {"hit_rate", static_cast<double>(result.hit_stripes) /
                                static_cast<double>(std::max<int64_t>(result.used_stripes, 1))},
               {"time_s", result.time_s},
               {"stall_s", result.stall_s},
               {"link_s", static_cast<double>(result.loaded_stripes() * times.stripe_bytes) /
                              times.link_bytes_per_s},
               {"optimum_bytes", row.optimum_bytes}};
  if (row.lp_bytes) json["lp_bytes"] = *row.lp_bytes;
  return json;
}

void PrintRows(const std::vector<Row>& rows, const ReplayTimes& times) {
  std::cout << absl::StreamFormat("%-10s %8s %9s %6s %11s %8s %11s %10s %7s %10s\n", "policy",
                                  "budget", "loads", "hits", "bytes", "optimum", "prefetched",
                                  "wasted", "stall", "time");
  for (const Row& row : rows) {
    const ReplayResult& result = row.result;
    const auto bytes = [&](int64_t stripes) {
      return FormatBytes(static_cast<uint64_t>(stripes * times.stripe_bytes));
    };
    const auto loaded = static_cast<double>(result.loaded_stripes() * times.stripe_bytes);
    std::cout << absl::StreamFormat(
        "%-10s %8s %9d %5.1f%% %11s %8s %11s %10s %6.1f%% %9.3fs", row.policy, row.budget,
        result.demand_experts,
        100.0 * static_cast<double>(result.hit_stripes) /
            static_cast<double>(std::max<int64_t>(result.used_stripes, 1)),
        bytes(result.loaded_stripes()),
        absl::StrFormat("x%.3f",
                        loaded / static_cast<double>(std::max<int64_t>(row.optimum_bytes, 1))),
        bytes(result.prefetched_stripes), bytes(result.wasted_stripes),
        result.time_s > 0 ? 100 * result.stall_s / result.time_s : 0, result.time_s);
    if (row.lp_bytes) std::cout << absl::StreamFormat("  LP x%.3f", loaded / *row.lp_bytes);
    std::cout << "\n";
  }
}

Json TransitionsJson(const std::vector<LayerTransitions>& all, int32_t num_experts) {
  Json json = Json::array();
  for (const LayerTransitions& transitions : all) {
    Json flow = Json::array();
    for (size_t i = 0; i < transitions.counts.size(); ++i) {
      if (transitions.counts[i] == 0) continue;
      flow.push_back({i / num_experts, i % num_experts, transitions.counts[i]});
    }
    json.push_back({{"from_layer", transitions.layer},
                    {"pairs", transitions.total},
                    {"share_top_1", transitions.share[0]},
                    {"share_top_2", transitions.share[1]},
                    {"share_top_4", transitions.share[2]},
                    {"flow", std::move(flow)}});
  }
  return json;
}

void PrintTransitions(const std::vector<LayerTransitions>& all, const RoutingTraceHeader& header) {
  std::cout << absl::StreamFormat(
      "\nFlow between adjacent layers: share that the likeliest successors of an expert cover (of "
      "pairs of\nchosen experts; %d chosen in each layer, so n successors cover at most n/%d)\n"
      "%-10s %10s %7s %7s %7s   %s\n",
      header.top_k, header.top_k, "layers", "pairs", "top 1", "top 2", "top 4", "largest flow");
  for (const LayerTransitions& transitions : all) {
    const auto largest = std::max_element(transitions.counts.begin(), transitions.counts.end());
    const auto at = largest - transitions.counts.begin();
    std::cout << absl::StreamFormat("%-10s %10d %6.2f%% %6.2f%% %6.2f%%   %d -> %d: %d\n",
                                    StrCat(transitions.layer, " to ", transitions.layer + 1),
                                    transitions.total, 100 * transitions.share[0],
                                    100 * transitions.share[1], 100 * transitions.share[2],
                                    at / header.num_experts, at % header.num_experts, *largest);
  }
}

absl::StatusOr<std::vector<Row>> ReplayAll(const Flags& flags,
                                           const TraceUses& uses,
                                           const ReplayTimes& times) {
  const int64_t all = int64_t{uses.shape().num_layers} * uses.shape().num_experts *
                      times.stripes_per_expert * times.stripe_bytes;
  const std::vector<int64_t> layer_bytes(uses.shape().num_layers,
                                         times.stripes_per_expert * times.stripe_bytes);
  std::vector<Row> rows;
  for (const std::string& budget : flags.budgets) {
    Row row;
    row.budget = budget;
    MOESAIC_ASSIGN_OR_RETURN(row.budget_bytes, ParseBudget(budget, all));
    ReplayOptions options;
    options.budget_stripes = row.budget_bytes / times.stripe_bytes;
    options.lookahead = flags.prefetch == "oracle" ? flags.lookahead : 0;
    MOESAIC_ASSIGN_OR_RETURN(const int64_t optimum,
                             OptimalStripes(uses, times.stripes_per_expert,
                                            std::max<int64_t>(options.budget_stripes, 1)));
    row.optimum_bytes = optimum * times.stripe_bytes;
    if (flags.lp) {
      MOESAIC_ASSIGN_OR_RETURN(row.lp_bytes, LeastBytes(uses, layer_bytes, row.budget_bytes));
    }
    for (const std::string& policy : flags.policies) {
      row.policy = policy;
      MOESAIC_ASSIGN_OR_RETURN(options.policy, ParseExpertPolicy(policy));
      MOESAIC_ASSIGN_OR_RETURN(row.result, Replay(uses, times, options));
      rows.push_back(row);
    }
  }
  return rows;
}

absl::Status Run(const Flags& flags) {
  MOESAIC_ASSIGN_OR_RETURN(const RoutingTrace trace, ReadRoutingTrace(flags.trace));
  MOESAIC_ASSIGN_OR_RETURN(const ModelProfile model, ReadModelProfile(flags.model));
  if (trace.records.empty()) {
    return absl::InvalidArgumentError(StrCat("routing trace ", flags.trace, ": holds no record"));
  }
  const TraceUses uses(trace, flags.steps);
  const ReplayTimes times = MakeTimes(model, flags);
  MOESAIC_ASSIGN_OR_RETURN(const std::vector<Row> rows, ReplayAll(flags, uses, times));
  std::vector<LayerTransitions> transitions;
  if (flags.transitions) transitions = CountTransitions(trace);
  const RoutingTraceHeader& header = trace.header;
  const std::string shape =
      StrCat(header.num_layers, " layers of ", header.num_experts, " experts, top ", header.top_k);
  if (flags.json) {
    Json json = {{"trace", flags.trace},
                 {"trace_model", header.model},
                 {"layers", header.num_layers},
                 {"experts", header.num_experts},
                 {"top_k", header.top_k},
                 {"steps", uses.num_steps()},
                 {"times_of", model.name},
                 {"stripe_bytes", times.stripe_bytes},
                 {"stripes_per_expert", times.stripes_per_expert},
                 {"dense_layer_s", times.dense_layer_s},
                 {"stripe_s", times.stripe_s},
                 {"stripe_row_s", times.stripe_row_s},
                 {"link_bytes_per_s", times.link_bytes_per_s},
                 {"prefetch", flags.prefetch},
                 {"lookahead", flags.prefetch == "oracle" ? flags.lookahead : 0},
                 {"rows", Json::array()}};
    for (const Row& row : rows) json["rows"].push_back(RowJson(row, times));
    if (flags.transitions) json["transitions"] = TransitionsJson(transitions, header.num_experts);
    std::cout << json.dump(2) << "\n";
    return absl::OkStatus();
  }
  std::cout << flags.trace << ": " << header.model << ", " << shape << ", " << uses.num_steps()
            << " steps\nvirtual time of " << model.name << ": link " << flags.link_gb_s
            << " GB/s, memory " << flags.memory_gb_s << " GB/s, " << flags.tflops
            << " TFLOPS, stripes of " << FormatBytes(static_cast<uint64_t>(times.stripe_bytes))
            << ", " << times.stripes_per_expert << " an expert; prefetch " << flags.prefetch
            << "\n";
  if (header.num_layers != model.num_layers || header.num_experts != model.num_experts ||
      header.top_k != model.top_k) {
    std::cout << "note: the trace's shape is not the model's (" << model.num_layers << " layers of "
              << model.num_experts << ", top " << model.top_k
              << "); only bytes and times of a layer are the model's\n";
  }
  PrintRows(rows, times);
  if (flags.transitions) PrintTransitions(transitions, header);
  return absl::OkStatus();
}

class ReplayCommand final : public Command {
 public:
  using Command::Command;

  absl::Status Run() const override { return bench::Run(flags); }

  Flags flags;
};

}  // namespace

std::unique_ptr<Command> AddReplayCommand(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "replay",
      "Replays a routing trace against expert policies and budgets in virtual time, and compares "
      "with the fewest bytes possible. Deterministic.");
  auto made = std::make_unique<ReplayCommand>(command);
  Flags& flags = made->flags;
  command.add_option("trace", flags.trace, "the routing trace")->required();
  command.add_option("--model", flags.model, "shape of a real model: benchmarks/models/*.json")
      ->capture_default_str();
  command
      .add_option("--policy", flags.policies,
                  "on-demand, fifo, lru, lfu, future, belady; several with commas")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--budget", flags.budgets, "bytes or % of all experts; several with commas")
      ->delimiter(',')
      ->capture_default_str();
  const auto add_positive = [&command](const char* name, double& value, const char* help) {
    command.add_option(name, value, help)->check(CLI::PositiveNumber)->capture_default_str();
  };
  add_positive("--link-gb-s", flags.link_gb_s, "bandwidth of the link to fast memory, GB/s");
  add_positive("--memory-gb-s", flags.memory_gb_s, "bandwidth of fast memory, GB/s");
  add_positive("--tflops", flags.tflops, "peak arithmetic, 1e12 operations per second");
  command
      .add_option(
          "--prefetch", flags.prefetch,
          "none, or oracle: what the trace shows to come, if it is needed before its victim")
      ->check(CLI::IsMember({"none", "oracle"}))
      ->capture_default_str();
  command.add_option("--lookahead", flags.lookahead, "layers that the oracle looks ahead")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command.add_option("--steps", flags.steps, "replay so many steps only; 0: all")
      ->check(CLI::Range(0, 1'000'000'000))
      ->capture_default_str();
  command.add_flag("--lp", flags.lp, "also solve the interval linear program (HiGHS)");
  command.add_flag("--transitions", flags.transitions,
                   "also print the flow of experts between adjacent layers");
  command.add_flag("--json", flags.json, "print JSON");
  return made;
}

}  // namespace moesaic::bench
