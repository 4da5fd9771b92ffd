#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/time/time.h"

namespace moesaic {

enum class ProgressUnit { kBytes, kItems };

// Progress of a long piece of work: one line rewritten in place on a terminal, a plain line every
// few seconds when the output is piped. Thread: one.
// Example: "packing weights  1.2 GiB of 1.4 GiB  86 %  1.9 GiB/s  0.6 s".
class ProgressLine {
 public:
  ProgressLine(std::string label,
               uint64_t total,
               ProgressUnit unit = ProgressUnit::kBytes,
               std::FILE* out = stderr);
  ~ProgressLine();  // Finish(), if it was not called.
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Advance(uint64_t amount);
  // Prints the final state once.
  void Finish();

 private:
  void Print(absl::Time now, bool final);
  std::string Format(uint64_t amount) const;

  const std::string label_;
  const uint64_t total_;
  const ProgressUnit unit_;
  std::FILE* const out_;
  const bool terminal_;
  const absl::Time start_;
  absl::Time last_print_;
  uint64_t done_ = 0;
  bool finished_ = false;
};

// "1.5 GiB", "336.0 MiB", "12 B".
std::string FormatBytes(uint64_t bytes);

}  // namespace moesaic
