// Parses arbitrary bytes as tokenizer.json or tokenizer.model, and uses what that makes.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "checkpoint/json.h"
#include "tokenizer/sentencepiece_tokenizer.h"
#include "tokenizer/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = bytes.starts_with('{')
                             ? moesaic::ParseTokenizerJson(bytes)
                             : moesaic::MakeSentencePieceTokenizer(bytes, moesaic::Json());
  if (!tokenizer.ok()) return 0;
  const auto ids = (*tokenizer)->Encode(" Aa b\t<s>é字\U0001F44D\n12", moesaic::EncodeOptions());
  if (ids.ok()) (*tokenizer)->Decode(*ids, moesaic::DecodeOptions());
  return 0;
}
