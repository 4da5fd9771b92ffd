#include "tokenizer/precompiled_charsmap.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>

namespace moesaic {
namespace {

// A double array of one rule: 'A' becomes the text at the beginning of the replacements. The root's
// offset is 1, so 'A' stands at 1 ^ 'A' = 64; its leaf is at 64 ^ 65 = 1.
std::string MakeMap(uint32_t leaf_value, const std::string& replacements) {
  std::vector<uint32_t> units(256, 0);
  units[0] = 1u << 10;
  units[64] = 65u << 10 | 1u << 8 | 'A';
  units[1] = 1u << 31 | leaf_value;
  const auto bytes = static_cast<uint32_t>(units.size() * sizeof(uint32_t));
  std::string map(sizeof(bytes) + bytes, '\0');
  std::memcpy(map.data(), &bytes, sizeof(bytes));
  std::memcpy(map.data() + sizeof(bytes), units.data(), bytes);
  return map + replacements;
}

std::string Apply(const std::string& bytes, std::string text) {
  const auto map = PrecompiledCharsmap::Parse(bytes, "test");
  EXPECT_TRUE(map.ok()) << map.status();
  map->Apply(&text);
  return text;
}

TEST(PrecompiledCharsmapTest, AppliesARule) {
  const std::string map = MakeMap(0, std::string("bc\0", 3));
  EXPECT_EQ(Apply(map, "xAA."), "xbcbc.");
  // A short cluster that begins like a rule is replaced as a whole; a long one is not.
  EXPECT_EQ(Apply(map, "A\u0301"), "bc");
  EXPECT_EQ(Apply(map, "A\u0301\u0301\u0301"), "bc\u0301\u0301\u0301");
  EXPECT_EQ(Apply("", "AA"), "AA");
}

TEST(PrecompiledCharsmapTest, RefusesLyingSizes) {
  const std::string map = MakeMap(0, "b");
  for (const std::string& bytes : {map.substr(0, 3), map.substr(0, 100), std::string(8, '\xFF'),
                                   std::string(8, '\0'), map + "\xFF"}) {
    EXPECT_EQ(PrecompiledCharsmap::Parse(bytes, "test").status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(PrecompiledCharsmapTest, CraftedTriesStayWithinTheirArray) {
  EXPECT_EQ(Apply(MakeMap(1'000'000, "b"), "A"), "A");  // a leaf behind the replacements
  EXPECT_EQ(Apply(MakeMap(1, "\xC3\xA9"), "A"), "A");   // and one inside a character
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    std::string map = MakeMap(0, "b");
    for (int j = 0; j < 40; ++j) map[4 + random() % 1024] = static_cast<char>(random());
    Apply(map, "AAb\u0301cA\nzé字👍");
  }
}

}  // namespace
}  // namespace moesaic
