#include "tokenizer/byte_trie.h"

#include <gtest/gtest.h>

#include <string_view>

namespace moesaic {
namespace {

int32_t Find(const ByteTrie& trie, std::string_view key) {
  int32_t node = ByteTrie::kRoot;
  for (const char c : key) {
    node = trie.Step(node, static_cast<unsigned char>(c));
    if (node == ByteTrie::kNoNode) return ByteTrie::kNoValue;
  }
  return trie.Value(node);
}

TEST(ByteTrieTest, FindsKeysAndTheirPrefixes) {
  const ByteTrie trie({{"abc", 1}, {"ab", 2}, {"b", 3}, {"\xFF\x80", 4}, {"ab", 5}, {"", 6}});
  EXPECT_EQ(Find(trie, "abc"), 1);
  EXPECT_EQ(Find(trie, "ab"), 2);  // the first of two equal keys
  EXPECT_EQ(Find(trie, "b"), 3);
  EXPECT_EQ(Find(trie, "\xFF\x80"), 4);
  for (const char* key : {"", "a", "abcd", "c", "\xFF"}) {
    EXPECT_EQ(Find(trie, key), ByteTrie::kNoValue) << key;
  }
}

TEST(ByteTrieTest, AnEmptyTrieHasNothing) {
  const ByteTrie trie;
  EXPECT_EQ(trie.Step(ByteTrie::kRoot, 'a'), ByteTrie::kNoNode);
  EXPECT_EQ(trie.Value(ByteTrie::kRoot), ByteTrie::kNoValue);
}

}  // namespace
}  // namespace moesaic
