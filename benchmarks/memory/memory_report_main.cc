// memory_report [activations|layers|experts]: tables of what memory plans buy, as Markdown,
// computed from shapes.

#include <cstdio>
#include <string_view>

#include "benchmarks/memory/memory_report.h"

namespace {

// Of the kernels, each of which has a workspace.
constexpr int kThreads = 16;

}  // namespace

int main(int argc, char** argv) {
  const std::string_view part = argc > 1 ? argv[1] : "all";
  const bool all = part == "all";
  if (argc > 2 || (!all && part != "activations" && part != "layers" && part != "experts")) {
    std::fputs("usage: memory_report [activations|layers|experts]\n", stderr);
    return 2;
  }
  if (all || part == "activations") moesaic::PrintActivations(kThreads);
  if (all || part == "layers") moesaic::PrintMicrocontrollerLayers();
  if (all || part == "experts") moesaic::PrintExpertArena();
  return 0;
}
