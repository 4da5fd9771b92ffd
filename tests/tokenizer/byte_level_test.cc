#include "tokenizer/byte_level.h"

#include <gtest/gtest.h>

#include <set>

#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

TEST(ByteLevelTest, EveryByteHasItsCharacter) {
  std::set<char32_t> characters;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    std::string spelling;
    AppendByteLevel(std::string_view(&c, 1), &spelling);
    size_t pos = 0;
    const char32_t character = NextCodePoint(spelling, &pos);
    EXPECT_EQ(pos, spelling.size());
    EXPECT_EQ(ByteOfByteLevel(character), byte);
    characters.insert(character);
  }
  EXPECT_EQ(characters.size(), 256u);
}

TEST(ByteLevelTest, SpellingIsGpt2s) {
  std::string spelling;
  AppendByteLevel("a b\né", &spelling);
  EXPECT_EQ(spelling, "aĠbĊÃ©");
  EXPECT_EQ(ByteOfByteLevel(U' '), std::nullopt);
  EXPECT_EQ(ByteOfByteLevel(U'字'), std::nullopt);
}

}  // namespace
}  // namespace moesaic
