#pragma once

#include <string>
#include <vector>

#include "model/model_config.h"

namespace moesaic {

// Tables of what memory plans buy, computed and not timed: printed as Markdown. One thread.

struct NamedModel {
  std::string name;
  ModelConfig config;  // the fields that shapes depend on
};
// The published shapes of one model per family.
std::vector<NamedModel> PublishedModels();

// Peak of a step's activations: the plan against its baselines, per model and regime.
void PrintActivations(int num_threads);
// vMCU's kinds of layers, beside the ranges that its paper prints.
void PrintMicrocontrollerLayers();
// Stripes against whole-expert slots and a best-fit allocator.
void PrintExpertArena();

}  // namespace moesaic
