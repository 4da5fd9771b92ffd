#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/moesaic/v1/inference.pb.h"
#include "tools/cli/options.h"

namespace moesaic::cli {

// Writes the answers to one generate command as they come: text of a single sequence at once,
// several sequences one after another at the end, or one JSON object for each message.
class GenerationPrinter {
 public:
  GenerationPrinter(const Options& options, std::FILE* out, std::FILE* err);

  void Print(const v1::GenerateResponse& message);
  // After the last message; `elapsed` since the request was sent.
  void Finish(absl::Duration elapsed, absl::Duration to_first_token);

 private:
  const Options& options_;
  std::FILE* const out_;
  std::FILE* const err_;
  std::vector<std::string> texts_;  // of several sequences
  bool ends_with_newline_ = true;
  int64_t tokens_ = 0;
  v1::Usage usage_;
};

std::string ToJson(const v1::GenerateResponse& message);
std::string ToJson(const v1::TokenizeResponse& message);
std::string ToJson(const v1::GetModelInfoResponse& info, const v1::GetLoadResponse& load);
// For people.
std::string Describe(const v1::GetModelInfoResponse& info, const v1::GetLoadResponse& load);

}  // namespace moesaic::cli
