#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <CLI/CLI.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tools/bench/commands.h"
#include "tools/bench/load_generator.h"
#include "tools/bench/report.h"

namespace moesaic::bench {
namespace {

struct ServeFlags {
  std::string address = "127.0.0.1:8001";
  int32_t num_prompts = 100;
  int32_t num_warmups = 2;
  double request_rate = std::numeric_limits<double>::infinity();
  double burstiness = 1.0;
  int32_t max_concurrency = 0;
  int32_t input_len = 128;
  int32_t output_len = 64;
  double range_ratio = 0;
  int32_t prefix_len = 0;
  std::string prompts_file;
  uint64_t seed = 0;
  float temperature = 0;
  bool stop_at_eos = false;
  std::vector<double> percentiles = {50, 90, 99};
  std::vector<std::string> goodput;
  std::string output_json;
  bool save_detailed = false;
  bool quiet = false;
};

absl::Status FromGrpc(const grpc::Status& status, const std::string& address) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      StrCat(address, ": ", status.error_message(),
                             status.error_code() == grpc::StatusCode::UNAVAILABLE
                                 ? " (is moesaic-server running there?)"
                                 : ""));
}

absl::StatusOr<Objectives> ParseObjectives(const std::vector<std::string>& texts) {
  Objectives objectives;
  for (const std::string& text : texts) {
    const size_t colon = text.find(':');
    double value = 0;
    const bool number =
        colon != std::string::npos && absl::SimpleAtod(text.substr(colon + 1), &value) && value > 0;
    const std::string name = text.substr(0, colon);
    if (number && name == "ttft") {
      objectives.ttft_ms = value;
    } else if (number && name == "tpot") {
      objectives.tpot_ms = value;
    } else if (number && name == "e2el") {
      objectives.e2el_ms = value;
    } else {
      return absl::InvalidArgumentError(
          StrCat("--goodput: got '", text, "', expected ttft:MS, tpot:MS or e2el:MS"));
    }
  }
  return objectives;
}

absl::StatusOr<std::vector<WorkItem>> MakeWorkload(const ServeFlags& flags,
                                                   const v1::GetModelInfoResponse& info) {
  if (!flags.prompts_file.empty()) return ReadWorkload(flags.prompts_file, flags.output_len);
  RandomWorkload random;
  random.num_prompts = flags.num_prompts + flags.num_warmups;
  random.input_tokens = flags.input_len;
  random.output_tokens = flags.output_len;
  random.range_ratio = flags.range_ratio;
  random.shared_prefix_tokens = flags.prefix_len;
  random.seed = flags.seed;
  random.vocab_size = info.shape().vocab_size();
  random.excluded_ids.assign(info.eos_token_ids().begin(), info.eos_token_ids().end());
  for (const auto& [present, id] : {std::pair{info.has_bos_token_id(), info.bos_token_id()},
                                    std::pair{info.has_pad_token_id(), info.pad_token_id()}}) {
    if (present) random.excluded_ids.push_back(id);
  }
  return MakeRandomWorkload(random);
}

RunSetup DescribeSetup(const ServeFlags& flags, const v1::GetModelInfoResponse& info) {
  RunSetup setup = {
      {"server", flags.address},
      {"model", StrCat(info.model(), " (", info.architecture(), ", ", info.dtype(), ")")}};
  if (info.routing_replayed()) setup.emplace_back("routing", "replayed");
  if (flags.prompts_file.empty()) {
    setup.emplace_back("prompts", StrCat("random, ", flags.input_len, " tokens in, ",
                                         flags.output_len, " out, range ratio ", flags.range_ratio,
                                         ", shared prefix ", flags.prefix_len));
  } else {
    setup.emplace_back("prompts", flags.prompts_file);
  }
  setup.emplace_back("seed", StrCat(flags.seed));
  setup.emplace_back("request rate",
                     std::isfinite(flags.request_rate)
                         ? StrCat(flags.request_rate, "/s, burstiness ", flags.burstiness)
                         : "unlimited");
  setup.emplace_back("max concurrency", flags.max_concurrency > 0 ? StrCat(flags.max_concurrency)
                                                                  : std::string("unlimited"));
  return setup;
}

absl::Status Serve(const ServeFlags& flags) {
  MOESAIC_ASSIGN_OR_RETURN(const Objectives objectives, ParseObjectives(flags.goodput));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(64 << 20);
  const auto channel =
      grpc::CreateCustomChannel(flags.address, grpc::InsecureChannelCredentials(), arguments);
  v1::Inference::Stub stub(channel);

  v1::GetModelInfoResponse info;
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    const grpc::Status status = stub.GetModelInfo(&context, v1::GetModelInfoRequest(), &info);
    if (!status.ok()) return FromGrpc(status, flags.address);
  }
  MOESAIC_ASSIGN_OR_RETURN(const std::vector<WorkItem> items, MakeWorkload(flags, info));
  const auto warmups = std::min(static_cast<size_t>(flags.num_warmups), items.size() - 1);

  LoadOptions options;
  options.max_concurrency = flags.max_concurrency;
  options.ignore_eos = !flags.stop_at_eos;
  options.temperature = flags.temperature;
  options.progress = false;
  const std::span<const WorkItem> all(items);
  RunLoad(stub, all.first(warmups), std::vector<double>(warmups, 0.0), options);

  options.progress = !flags.quiet;
  const std::span<const WorkItem> measured = all.subspan(warmups);
  const std::vector<RequestTrace> traces = RunLoad(
      stub, measured,
      ArrivalTimes(measured.size(), flags.request_rate, flags.burstiness, flags.seed), options);

  const ServingMetrics metrics = ComputeServingMetrics(traces, flags.percentiles, objectives);
  const RunSetup setup = DescribeSetup(flags, info);
  if (!flags.quiet) std::cout << FormatTable(setup, metrics, flags.percentiles);
  if (!flags.output_json.empty()) {
    const std::string json =
        FormatJson(setup, metrics, flags.percentiles, traces, flags.save_detailed);
    if (flags.output_json == "-") {
      std::cout << json;
    } else if (!(std::ofstream(flags.output_json) << json)) {
      return absl::UnavailableError(StrCat("cannot write ", flags.output_json));
    }
  }
  if (metrics.completed == 0) {
    return absl::UnavailableError(
        StrCat("no request completed; the first error: ", traces.front().error));
  }
  return absl::OkStatus();
}

void AddServeFlags(CLI::App& app, ServeFlags& flags) {
  app.add_option("--address", flags.address, "gRPC address of the server")->capture_default_str();
  app.add_option("--num-prompts", flags.num_prompts, "requests to measure (random prompts)")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  app.add_option("--num-warmups", flags.num_warmups, "requests sent before measuring")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--request-rate", flags.request_rate,
                 "mean arrivals per second; inf sends all at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--burstiness", flags.burstiness,
                 "shape of the gamma-distributed gaps; 1 is a Poisson process")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-concurrency", flags.max_concurrency,
                 "requests in flight at once; 0: no limit")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  app.add_option("--input-len", flags.input_len, "prompt length in tokens (random prompts)")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_option("--output-len", flags.output_len,
                 "tokens to generate; for a prompts file, where a line names none")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_option("--range-ratio", flags.range_ratio,
                 "lengths vary uniformly by this fraction, [0, 1)")
      ->check(CLI::Range(0.0, 0.999))
      ->capture_default_str();
  app.add_option("--prefix-len", flags.prefix_len, "tokens that all random prompts begin with")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  app.add_option("--prompts-file", flags.prompts_file,
                 "a prompt a line, or JSON lines {\"prompt\": TEXT or [IDS], \"max_tokens\": N}")
      ->check(CLI::ExistingFile);
  app.add_option("--seed", flags.seed, "of prompts, lengths and arrivals")->capture_default_str();
  app.add_option("--temperature", flags.temperature, "sampling temperature; 0 is greedy")
      ->capture_default_str();
  app.add_flag("--stop-at-eos", flags.stop_at_eos,
               "let the model end a sequence before its length");
  app.add_option("--metric-percentiles", flags.percentiles, "percentiles to report")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--goodput", flags.goodput, "objectives in ms: ttft:MS tpot:MS e2el:MS");
  app.add_option("--output-json", flags.output_json,
                 "write the figures here as JSON; - for standard output");
  app.add_flag("--save-detailed", flags.save_detailed, "also each request's times, in the JSON");
  app.add_flag("--quiet", flags.quiet, "no progress and no table");
}

class ServeCommand final : public Command {
 public:
  using Command::Command;

  absl::Status Run() const override { return Serve(flags); }

  ServeFlags flags;
};

}  // namespace

std::unique_ptr<Command> AddServeCommand(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "serve",
      "Sends requests over gRPC and reports time to first token, time per output token, "
      "inter-token and "
      "end-to-end latency, and throughput. Definitions are those of vLLM's `bench serve`.");
  auto made = std::make_unique<ServeCommand>(command);
  AddServeFlags(command, made->flags);
  return made;
}

}  // namespace moesaic::bench
