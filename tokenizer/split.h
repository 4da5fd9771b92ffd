#pragma once

#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "tokenizer/regex.h"

namespace moesaic {

// What becomes of a delimiter when a text is split at it.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Appends the pieces of `text` to `pieces`, shifted by `offset`. `delimiters`: in order, not
// overlapping. With `invert`, what lies between them is the delimiters.
void SplitAt(std::string_view text,
             const std::vector<Span>& delimiters,
             SplitBehavior behavior,
             bool invert,
             size_t offset,
             std::vector<Span>* pieces);

// Each character of `text` for which `is_delimiter` holds, as a delimiter of its own.
std::vector<Span> FindCharacters(std::string_view text,
                                 absl::FunctionRef<bool(char32_t)> is_delimiter);
std::vector<Span> FindString(std::string_view text, std::string_view delimiter);

}  // namespace moesaic
