#include "tokenizer/tokenizer_base.h"

#include <algorithm>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

// The longest text. Working memory is up to about 50 bytes per byte, of a text without word breaks.
constexpr size_t kMaxTextBytes = size_t{64} << 20;

std::string_view At(std::string_view text, const Span& span) {
  return text.substr(span.begin, span.end - span.begin);
}

}  // namespace

class TokenizerBase::Stream final : public DecodeStream {
 public:
  Stream(const TokenizerBase& tokenizer, const DecodeOptions& options)
      : tokenizer_(tokenizer),
        skip_special_tokens_(options.skip_special_tokens),
        stream_(tokenizer.decoder_) {}

  void Push(int32_t id, std::string* out) override {
    if (!tokenizer_.Contains(id)) return;
    if (skip_special_tokens_ && tokenizer_.IsSpecial(id)) return;
    stream_.Push(tokenizer_.TokenOf(id), out);
  }
  void Flush(std::string* out) override { stream_.Flush(out); }

 private:
  const TokenizerBase& tokenizer_;
  const bool skip_special_tokens_;
  DecoderStream stream_;
};

absl::StatusOr<std::vector<int32_t>> TokenizerBase::Encode(std::string_view text,
                                                           const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        StrCat("text of ", text.size(), " bytes; at most ", kMaxTextBytes, " are tokenized"));
  }
  if (const std::optional<size_t> offset = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(StrCat("text is not UTF-8 at byte ", *offset));
  }
  const bool parse_special = options.parse_special_tokens;
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = post_processor_.before;
  for (const AddedTokens::Part& raw : added_.SplitRaw(text, parse_special)) {
    if (raw.id >= 0) {
      ids.push_back(raw.id);
      continue;
    }
    std::string normalized(At(text, raw.span));
    MOESAIC_RETURN_IF_ERROR(Normalize(&normalized));
    for (const AddedTokens::Part& part : added_.SplitNormalized(normalized, parse_special)) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      const bool starts_request = raw.span.begin == 0 && part.span.begin == 0;
      MOESAIC_RETURN_IF_ERROR(
          Tokenize(std::string(At(normalized, part.span)), starts_request, &ids));
    }
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), post_processor_.after.begin(), post_processor_.after.end());
  }
  return ids;
}

std::unique_ptr<DecodeStream> TokenizerBase::NewDecodeStream(const DecodeOptions& options) const {
  return std::make_unique<Stream>(*this, options);
}

int32_t TokenizerBase::vocab_size() const { return std::max(added_.size(), vocabulary().size()); }

bool TokenizerBase::IsSpecial(int32_t id) const { return added_.IsSpecial(TokenOf(id)); }

std::optional<int32_t> TokenizerBase::TokenToId(std::string_view token) const {
  const std::optional<int32_t> added = added_.FindId(token);
  return added ? added : vocabulary().Find(token);
}

std::string TokenizerBase::IdToToken(int32_t id) const { return std::string(TokenOf(id)); }

bool TokenizerBase::Contains(int32_t id) const {
  return added_.Find(id) != nullptr || vocabulary().Contains(id);
}

std::string_view TokenizerBase::TokenOf(int32_t id) const {
  const AddedToken* added = added_.Find(id);
  return added != nullptr ? std::string_view(added->content) : vocabulary().TokenOf(id);
}

}  // namespace moesaic
