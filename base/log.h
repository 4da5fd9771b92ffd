#pragma once

// Logging: `spdlog::info("...", ...)` and its kin, to standard error, one line per event. Set up
// once in main.

#include <spdlog/formatter.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
