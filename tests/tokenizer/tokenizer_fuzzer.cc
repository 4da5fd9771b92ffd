// Encodes and decodes arbitrary bytes with a tokenizer of every pipeline. The first byte chooses
// tokenizer and options.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

std::vector<std::unique_ptr<Tokenizer>> LoadAll() {
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  for (const char* name : {"qwen", "olmoe", "mixtral", "mixtral_metaspace", "t5", "llama_model"}) {
    auto loaded =
        Tokenizer::Load(std::string(MOESAIC_SOURCE_DIR "/tests/tokenizer/testdata/") + name);
    if (!loaded.ok()) std::abort();
    tokenizers.push_back(std::move(loaded).value());
  }
  return tokenizers;
}

void Check(bool holds) {
  if (!holds) std::abort();
}

void CheckStream(const Tokenizer& tokenizer,
                 const std::vector<int32_t>& ids,
                 const DecodeOptions& options) {
  IncrementalDetokenizer stream(tokenizer, options);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = stream.Push(id);
    Check(!FindInvalidUtf8(piece).has_value());
    text += piece;
  }
  text += stream.Flush();
  Check(text == tokenizer.Decode(ids, options));
}

}  // namespace
}  // namespace moesaic

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizers = moesaic::LoadAll();
  if (size == 0) return 0;
  const moesaic::Tokenizer& tokenizer = *tokenizers[data[0] % tokenizers.size()];
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const moesaic::DecodeOptions decode{.skip_special_tokens = (data[0] & 0x40) != 0};
  const auto ids =
      tokenizer.Encode(text, {.add_special_tokens = true, .parse_special_tokens = data[0] >= 0x80});
  moesaic::Check(ids.ok() == !moesaic::FindInvalidUtf8(text).has_value());
  if (ids.ok()) moesaic::CheckStream(tokenizer, *ids, decode);
  // The same bytes as ids, in and out of the vocabulary.
  std::vector<int32_t> any_ids;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    any_ids.push_back(static_cast<uint8_t>(text[i]) % 9 * 256 + static_cast<uint8_t>(text[i + 1]) -
                      1);
  }
  moesaic::CheckStream(tokenizer, any_ids, decode);
  return 0;
}
