// memory_report [activations|layers|experts]: tables of what memory plans buy, as Markdown.

#include <CLI/CLI.hpp>

#include "benchmarks/memory/memory_report.h"

int main(int argc, char** argv) {
  CLI::App app("Prints what memory plans buy, computed from shapes.");
  int num_threads = 16;
  app.add_option("--threads", num_threads, "Kernel threads, each of which has a workspace")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  CLI::App* activations = app.add_subcommand("activations", "Peak of a step's activations");
  CLI::App* layers = app.add_subcommand("layers", "Layers of microcontroller networks");
  CLI::App* experts = app.add_subcommand("experts", "Stripes against whole experts");
  CLI11_PARSE(app, argc, argv);
  const bool all = app.get_subcommands().empty();
  if (all || activations->parsed()) moesaic::PrintActivations(num_threads);
  if (all || layers->parsed()) moesaic::PrintMicrocontrollerLayers();
  if (all || experts->parsed()) moesaic::PrintExpertArena();
  return 0;
}
