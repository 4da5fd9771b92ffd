#pragma once

#include <memory>

#include <CLI/CLI.hpp>

#include "absl/status/status.h"

namespace moesaic::bench {

// A subcommand of moesaic-bench, with its flags. Owner: main; its CLI::App outlives it.
class Command {
 public:
  explicit Command(const CLI::App& command) : command_(command) {}
  virtual ~Command() = default;

  // Whether the command line chose it.
  bool chosen() const { return command_.parsed(); }
  virtual absl::Status Run() const = 0;

 private:
  const CLI::App& command_;
};

// Each adds itself to `app`.
std::unique_ptr<Command> AddServeCommand(CLI::App& app);
std::unique_ptr<Command> AddGenerateTraceCommand(CLI::App& app);
std::unique_ptr<Command> AddReplayCommand(CLI::App& app);

// Parses the command line and runs the subcommand that it chose; the process's exit status.
int RunCommandLine(int argc, char** argv);

}  // namespace moesaic::bench
