#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "base/progress.h"
#include "base/status_macros.h"
#include "tools/bench/commands.h"
#include "tools/bench/routing_generator.h"

namespace moesaic::bench {
namespace {

struct Flags {
  std::string output;
  RoutingTraceHeader header = {
      .model = "generated", .num_layers = 16, .num_experts = 64, .top_k = 8};
  RoutingGeneratorOptions options;
};

absl::Status Run(const Flags& flags) {
  MOESAIC_ASSIGN_OR_RETURN(const std::unique_ptr<RoutingTraceWriter> writer,
                           RoutingTraceWriter::Create(flags.output, flags.header));
  MOESAIC_RETURN_IF_ERROR(GenerateRouting(flags.options, *writer));
  MOESAIC_RETURN_IF_ERROR(writer->Finish());
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(flags.output, error);
  std::cout << flags.output << ": " << flags.options.steps << " steps of " << flags.options.streams
            << " rows" << (error ? "" : ", " + FormatBytes(bytes)) << "\n";
  return absl::OkStatus();
}

class GenerateTraceCommand final : public Command {
 public:
  using Command::Command;

  absl::Status Run() const override { return bench::Run(flags); }

  Flags flags;
};

}  // namespace

std::unique_ptr<Command> AddGenerateTraceCommand(CLI::App& app) {
  CLI::App& command = *app.add_subcommand(
      "generate-trace",
      "Writes a synthetic routing trace of requests that decode side by side. The same flags give "
      "the same file.");
  auto made = std::make_unique<GenerateTraceCommand>(command);
  Flags& flags = made->flags;
  const auto add = [&command](const char* name, auto& value, const char* help) {
    command.add_option(name, value, help)->capture_default_str();
  };
  command.add_option("--output", flags.output, "the trace to write")->required();
  add("--model", flags.header.model, "name to put into the trace");
  add("--layers", flags.header.num_layers, "layers with routed experts");
  add("--experts", flags.header.num_experts, "experts of a layer");
  add("--top-k", flags.header.top_k, "experts of a token");
  RoutingGeneratorOptions& options = flags.options;
  add("--streams", options.streams, "requests that decode side by side");
  add("--steps", options.steps, "engine steps");
  add("--request-tokens", options.request_tokens, "tokens of a request");
  add("--zipf", options.zipf, "exponent of expert popularity; 0 is uniform");
  add("--topics", options.topics, "topics, each with its own popular experts");
  add("--drift", options.drift, "chance that a request changes its topic at a token");
  add("--correlation", options.correlation,
      "chance that a token's choice follows its choice in the layer before");
  add("--repeat", options.repeat,
      "chance that a token's choice repeats the choice of the request's token before");
  add("--seed", options.seed, "of all draws");
  return made;
}

}  // namespace moesaic::bench
