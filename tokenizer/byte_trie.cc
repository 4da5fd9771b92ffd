#include "tokenizer/byte_trie.h"

#include <algorithm>

namespace moesaic {

ByteTrie::ByteTrie(std::vector<std::pair<std::string, int32_t>> entries)
    : nodes_(1), root_(256, kNoNode) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // Breadth first, so that the children of a node are adjacent. Each node owns the range of entries
  // that share its prefix.
  struct Range {
    size_t begin;
    size_t end;
    size_t depth;
  };
  std::vector<Range> ranges = {{0, entries.size(), 0}};
  for (size_t node = 0; node < nodes_.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    if (begin < end && entries[begin].first.size() == depth) {
      if (depth > 0) nodes_[node].value = entries[begin].second;
      while (begin < end && entries[begin].first.size() == depth) ++begin;
    }
    nodes_[node].first_child = static_cast<uint32_t>(nodes_.size());
    while (begin < end) {
      const char byte = entries[begin].first[depth];
      size_t child_end = begin;
      while (child_end < end && entries[child_end].first[depth] == byte) ++child_end;
      if (node == 0) {
        root_[static_cast<unsigned char>(byte)] = static_cast<int32_t>(nodes_.size());
      }
      ++nodes_[node].child_count;
      nodes_.emplace_back();
      nodes_.back().byte = static_cast<unsigned char>(byte);
      ranges.push_back({begin, child_end, depth + 1});
      begin = child_end;
    }
  }
}

}  // namespace moesaic
