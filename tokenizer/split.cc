#include "tokenizer/split.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

struct Section {
  Span span;
  bool is_delimiter;
};

// The text as an alternation of delimiters and what lies between.
std::vector<Section> Sections(std::string_view text,
                              const std::vector<Span>& delimiters,
                              bool invert) {
  std::vector<Section> sections;
  sections.reserve(2 * delimiters.size() + 1);
  size_t end = 0;
  for (const Span& delimiter : delimiters) {
    if (delimiter.begin > end) sections.push_back({{end, delimiter.begin}, invert});
    sections.push_back({delimiter, !invert});
    end = delimiter.end;
  }
  if (end < text.size()) sections.push_back({{end, text.size()}, invert});
  return sections;
}

// A delimiter that follows no other joins the section before it.
std::vector<Span> MergeWithPrevious(const std::vector<Section>& sections) {
  std::vector<Span> merged;
  bool previous_is_delimiter = false;
  for (const auto& [span, is_delimiter] : sections) {
    if (is_delimiter && !previous_is_delimiter && !merged.empty()) {
      merged.back().end = span.end;
    } else {
      merged.push_back(span);
    }
    previous_is_delimiter = is_delimiter;
  }
  return merged;
}

std::vector<Span> MergeWithNext(const std::vector<Section>& sections) {
  std::vector<Span> merged;
  bool next_is_delimiter = false;
  for (auto section = sections.rbegin(); section != sections.rend(); ++section) {
    if (section->is_delimiter && !next_is_delimiter && !merged.empty()) {
      merged.back().begin = section->span.begin;
    } else {
      merged.push_back(section->span);
    }
    next_is_delimiter = section->is_delimiter;
  }
  std::reverse(merged.begin(), merged.end());
  return merged;
}

std::vector<Span> MergeRuns(const std::vector<Section>& sections) {
  std::vector<Span> merged;
  for (size_t i = 0; i < sections.size(); ++i) {
    if (i > 0 && sections[i].is_delimiter == sections[i - 1].is_delimiter) {
      merged.back().end = sections[i].span.end;
    } else {
      merged.push_back(sections[i].span);
    }
  }
  return merged;
}

}  // namespace

void SplitAt(std::string_view text,
             const std::vector<Span>& delimiters,
             SplitBehavior behavior,
             bool invert,
             size_t offset,
             std::vector<Span>* pieces) {
  const std::vector<Section> sections = Sections(text, delimiters, invert);
  const auto append = [&](const Span& span) {
    if (span.begin < span.end) pieces->push_back({span.begin + offset, span.end + offset});
  };
  const auto append_all = [&](const std::vector<Span>& spans) {
    for (const Span& span : spans) append(span);
  };
  switch (behavior) {
    case SplitBehavior::kRemoved:
      for (const Section& section : sections) {
        if (!section.is_delimiter) append(section.span);
      }
      break;
    case SplitBehavior::kIsolated:
      for (const Section& section : sections) append(section.span);
      break;
    case SplitBehavior::kMergedWithPrevious:
      append_all(MergeWithPrevious(sections));
      break;
    case SplitBehavior::kMergedWithNext:
      append_all(MergeWithNext(sections));
      break;
    case SplitBehavior::kContiguous:
      append_all(MergeRuns(sections));
      break;
  }
}

std::vector<Span> FindCharacters(std::string_view text,
                                 absl::FunctionRef<bool(char32_t)> is_delimiter) {
  std::vector<Span> found;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (is_delimiter(NextCodePoint(text, &pos))) found.push_back({begin, pos});
  }
  return found;
}

std::vector<Span> FindString(std::string_view text, std::string_view delimiter) {
  std::vector<Span> found;
  for (size_t pos = text.find(delimiter); pos != std::string_view::npos;
       pos = text.find(delimiter, pos + delimiter.size())) {
    found.push_back({pos, pos + delimiter.size()});
  }
  return found;
}

}  // namespace moesaic
