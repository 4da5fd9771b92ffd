#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/moesaic/v1/inference.pb.h"

namespace moesaic::cli {

enum class Command { kGenerate, kInfo, kHealth, kTokenize, kPrint };

// What the user asked for on the command line.
struct Options {
  Command command = Command::kPrint;
  std::string address = "127.0.0.1:8001";
  absl::Duration timeout = absl::InfiniteDuration();
  bool json = false;
  bool stats = false;           // of generate: a line of figures at the end
  bool read_stdin = false;      // the prompt comes from standard input
  v1::GenerateRequest request;  // of generate; its prompt is empty when it comes from stdin
  bool prompt_is_ids = false;
  v1::TokenizeRequest tokenize;
  std::string text;  // of kPrint: help or version
};

// InvalidArgument with a message for the user.
absl::StatusOr<Options> ParseOptions(int argc, const char* const* argv);

// "1, 2 3": token ids separated by commas or blanks. InvalidArgument naming what is none.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const std::string& text);

// Makes `text` the request's prompt. InvalidArgument when it is empty, not UTF-8, or, as ids,
// malformed.
absl::Status SetPrompt(std::string text, Options& options);

}  // namespace moesaic::cli
