#pragma once

#include <cstdio>
#include <cstdlib>

// Ends the process, in every build, when `condition` does not hold: for our own bugs that would
// otherwise corrupt results. Nothing that comes from outside may reach one.
#define MOESAIC_CHECK(condition)                                \
  do {                                                          \
    if (!(condition)) [[unlikely]]                              \
      ::moesaic::CheckFailed(__FILE__, __LINE__, (#condition)); \
  } while (false)

namespace moesaic {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace moesaic
