#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace moesaic {

// A range of bytes.
struct Span {
  size_t begin = 0;
  size_t end = 0;
};

// A regular expression in the dialect of tokenizer.json (Oniguruma's, Ruby syntax), run by PCRE2's
// just-in-time compiler. Immutable: any thread.
class Regex {
 public:
  // InvalidArgument beginning with `what` for a pattern that is malformed, or uses what the two
  // dialects do not share and is not translated.
  static absl::StatusOr<std::unique_ptr<Regex>> Compile(std::string_view pattern,
                                                        std::string_view what);
  // As Compile, of a pattern that stands in this program.
  static std::unique_ptr<Regex> CompileOrDie(std::string_view pattern);
  ~Regex();

  // All matches in `text`, which must be UTF-8, in order; they do not overlap. ResourceExhausted
  // when the pattern backtracks beyond a fixed number of steps.
  absl::Status FindAll(std::string_view text, std::vector<Span>* matches) const;

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace moesaic
