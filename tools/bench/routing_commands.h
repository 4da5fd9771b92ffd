#pragma once

#include <functional>

#include <CLI/CLI.hpp>

#include "absl/status/status.h"

namespace moesaic::bench {

// The subcommands of moesaic-bench that need no server: generate-trace and replay. Each adds itself
// to `app`, and sets `run` when the command line chose it.
void AddGenerateTraceCommand(CLI::App& app, std::function<absl::Status()>& run);
void AddReplayCommand(CLI::App& app, std::function<absl::Status()>& run);

}  // namespace moesaic::bench
