#include "tokenizer/tokenizer.h"

namespace moesaic {
namespace {

// How many tokens that make text are taken from the end of the context: more than one character
// has bytes, so that one that the context leaves incomplete is completed.
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
