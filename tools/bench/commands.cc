#include "tools/bench/commands.h"

#include <iostream>
#include <memory>

namespace moesaic::bench {

int RunCommandLine(int argc, char** argv) {
  CLI::App app("Measures a Moesaic server, and replays the routing of its experts.");
  app.require_subcommand(1);
  const std::unique_ptr<Command> commands[] = {AddServeCommand(app), AddReplayCommand(app),
                                               AddGenerateTraceCommand(app)};
  CLI11_PARSE(app, argc, argv);
  for (const std::unique_ptr<Command>& command : commands) {
    if (!command->chosen()) continue;
    if (const absl::Status status = command->Run(); !status.ok()) {
      std::cerr << "moesaic-bench: " << status.message() << "\n";
      return 1;
    }
  }
  return 0;
}

}  // namespace moesaic::bench
