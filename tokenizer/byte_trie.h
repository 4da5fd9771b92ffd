#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moesaic {

// A set of byte strings that is walked one byte at a time. Immutable: any thread.
class ByteTrie {
 public:
  static constexpr int32_t kNoNode = -1;
  static constexpr int32_t kNoValue = -1;
  static constexpr int32_t kRoot = 0;

  ByteTrie() : ByteTrie(std::vector<std::pair<std::string, int32_t>>()) {}
  // Values are not negative. Of equal keys the first counts; empty keys are left out.
  explicit ByteTrie(std::vector<std::pair<std::string, int32_t>> entries);

  // The node behind `node` by `byte`, or kNoNode.
  int32_t Step(int32_t node, unsigned char byte) const {
    if (node == kRoot) return root_[byte];
    const Node& parent = nodes_[static_cast<size_t>(node)];
    for (uint32_t i = parent.first_child; i < parent.first_child + parent.child_count; ++i) {
      if (nodes_[i].byte == byte) return static_cast<int32_t>(i);
    }
    return kNoNode;
  }
  // The value of the key that ends at `node`, or kNoValue.
  int32_t Value(int32_t node) const { return nodes_[static_cast<size_t>(node)].value; }

 private:
  struct Node {
    int32_t value = kNoValue;
    uint32_t first_child = 0;  // children are adjacent
    uint16_t child_count = 0;
    unsigned char byte = 0;
  };
  std::vector<Node> nodes_;
  std::vector<int32_t> root_;  // children of the root by byte
};

}  // namespace moesaic
