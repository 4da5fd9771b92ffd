#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moesaic::bench {

// What the client saw of one request. Times are seconds of one monotonic clock since the run began.
struct RequestTrace {
  double intended_s = 0;              // when the arrival process wanted it sent
  double sent_s = 0;                  // when it was sent
  std::vector<double> chunk_s;        // arrival of each message that held tokens
  std::vector<int32_t> chunk_tokens;  // tokens in it
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;  // the server's usage
  bool ok = false;
  std::string error;  // when not ok
};

}  // namespace moesaic::bench
