#pragma once

// Logging: `spdlog::info("...", ...)` and its kin, to standard error, one line per event. Set up
// once in main.

#include <spdlog/spdlog.h>
