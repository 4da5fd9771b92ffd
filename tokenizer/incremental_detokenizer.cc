#include "tokenizer/tokenizer.h"

namespace moesaic {
namespace {

// Tokens of the context that can decide how new ones decode: more than a character has bytes.
constexpr int kContextTokens = 8;

}  // namespace

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer& tokenizer,
                                               const DecodeOptions& options,
                                               std::span<const int32_t> context)
    : stream_(tokenizer.NewDecodeStream(options)) {
  size_t begin = context.size();
  for (int tokens = 0; begin > 0 && tokens < kContextTokens;) {
    --begin;
    if (!tokenizer.IsSpecial(context[begin])) ++tokens;
  }
  std::string ignored;
  for (const int32_t id : context.subspan(begin)) stream_->Push(id, &ignored);
}

std::string IncrementalDetokenizer::Push(int32_t id) {
  std::string text;
  stream_->Push(id, &text);
  return text;
}

std::string IncrementalDetokenizer::Flush() {
  std::string text;
  stream_->Flush(&text);
  return text;
}

}  // namespace moesaic
