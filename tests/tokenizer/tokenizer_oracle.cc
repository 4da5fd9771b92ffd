// Encodes and decodes for scripts/tokenizer_oracle.py. Argument: a model folder. Reads requests
// from standard input, each a byte of flags (1: add special tokens, 2: parse special tokens, 4: the
// payload is ids to decode, 8: skip special tokens), a 32-bit length and that many bytes; answers
// with a 32-bit length and int32 ids, or text. An error is the length -1.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace moesaic {
namespace {

bool Read(void* data, size_t bytes) { return std::fread(data, 1, bytes, stdin) == bytes; }

void Answer(const void* data, size_t bytes) {
  const auto length = static_cast<int32_t>(bytes);
  std::fwrite(&length, sizeof(length), 1, stdout);
  if (bytes > 0) std::fwrite(data, 1, bytes, stdout);
}

int Run(const char* folder) {
  const auto tokenizer = Tokenizer::Load(folder);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", std::string(tokenizer.status().message()).c_str());
    return 1;
  }
  uint8_t flags = 0;
  while (Read(&flags, sizeof(flags))) {
    uint32_t length = 0;
    if (!Read(&length, sizeof(length))) return 1;
    std::string payload(length, '\0');
    if (!Read(payload.data(), length)) return 1;
    if ((flags & 4) != 0) {
      std::vector<int32_t> ids(length / sizeof(int32_t));
      std::memcpy(ids.data(), payload.data(), ids.size() * sizeof(int32_t));
      const std::string text = (*tokenizer)->Decode(ids, {.skip_special_tokens = (flags & 8) != 0});
      Answer(text.data(), text.size());
    } else {
      const auto ids = (*tokenizer)
                           ->Encode(payload, {.add_special_tokens = (flags & 1) != 0,
                                              .parse_special_tokens = (flags & 2) != 0});
      if (ids.ok()) {
        Answer(ids->data(), ids->size() * sizeof(int32_t));
      } else {
        std::fprintf(stderr, "%s\n", std::string(ids.status().message()).c_str());
        const int32_t error = -1;
        std::fwrite(&error, sizeof(error), 1, stdout);
      }
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace moesaic

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenizer_oracle FOLDER\n");
    return 2;
  }
  return moesaic::Run(argv[1]);
}
