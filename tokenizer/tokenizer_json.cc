#include "tokenizer/tokenizer_json.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/token_model.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

constexpr std::string_view kFile = "tokenizer.json";
// The longest text; each step may grow it several times.
constexpr size_t kMaxTextBytes = size_t{256} << 20;

class JsonTokenizer;

class JsonDecodeStream final : public DecodeStream {
 public:
  JsonDecodeStream(const JsonTokenizer& tokenizer, const DecodeOptions& options);
  void Push(int32_t id, std::string* out) override;
  void Flush(std::string* out) override { stream_.Flush(out); }

 private:
  const JsonTokenizer& tokenizer_;
  const bool skip_special_tokens_;
  DecoderStream stream_;
};

class JsonTokenizer final : public Tokenizer {
 public:
  absl::Status Load(const Json& json);

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options) const override;
  std::unique_ptr<DecodeStream> NewDecodeStream(const DecodeOptions& options) const override {
    return std::make_unique<JsonDecodeStream>(*this, options);
  }

  int32_t vocab_size() const override {
    return std::max(added_.size(), model_->vocabulary().size());
  }
  bool IsSpecial(int32_t id) const override { return added_.IsSpecial(Token(id)); }
  std::optional<int32_t> TokenToId(std::string_view token) const override {
    const std::optional<int32_t> added = added_.FindId(token);
    return added ? added : model_->vocabulary().Find(token);
  }
  std::string IdToToken(int32_t id) const override { return std::string(Token(id)); }

  bool Contains(int32_t id) const {
    return added_.Find(id) != nullptr || model_->vocabulary().Contains(id);
  }
  std::string_view Token(int32_t id) const {
    const AddedToken* added = added_.Find(id);
    return added != nullptr ? std::string_view(added->content) : model_->vocabulary().TokenOf(id);
  }
  const std::vector<DecoderStep>& decoder() const { return decoder_; }

 private:
  absl::Status LoadModel(const Json& json);
  // Text between the added tokens that are looked for before normalisation.
  absl::Status EncodePart(std::string_view text,
                          bool starts_request,
                          const EncodeOptions& options,
                          std::vector<int32_t>* ids) const;

  std::unique_ptr<TokenModel> model_;
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  AddedTokens added_;
  PostProcessor post_processor_;
  std::vector<DecoderStep> decoder_;
};

absl::Status JsonTokenizer::Load(const Json& json) {
  if (!json.is_object()) return absl::InvalidArgumentError(StrCat(kFile, " is not an object"));
  const auto field = [&](const char* name) -> Json {
    const Json* value = JsonFind(json, name);
    return value != nullptr ? *value : Json();
  };
  const auto path = [](std::string_view name) { return StrCat(kFile, ": ", name); };
  MOESAIC_RETURN_IF_ERROR(LoadModel(json));
  MOESAIC_ASSIGN_OR_RETURN(normalizer_, ParseNormalizer(field("normalizer"), path("normalizer")));
  MOESAIC_ASSIGN_OR_RETURN(pre_tokenizer_,
                           ParsePreTokenizer(field("pre_tokenizer"), path("pre_tokenizer")));
  MOESAIC_ASSIGN_OR_RETURN(added_, AddedTokens::Parse(field("added_tokens"), path("added_tokens"),
                                                      model_->vocabulary(), *normalizer_));
  MOESAIC_ASSIGN_OR_RETURN(post_processor_,
                           ParsePostProcessor(field("post_processor"), path("post_processor")));
  MOESAIC_ASSIGN_OR_RETURN(decoder_, ParseDecoder(field("decoder"), path("decoder")));
  return absl::OkStatus();
}

absl::Status JsonTokenizer::LoadModel(const Json& json) {
  const std::string what = StrCat(kFile, ": model");
  const Json* model = JsonFind(json, "model");
  if (model == nullptr || !model->is_object()) {
    return absl::InvalidArgumentError(StrCat(what, " is not an object"));
  }
  // Older files leave the type out; only BPE has merges.
  MOESAIC_ASSIGN_OR_RETURN(
      const std::string type,
      JsonString(*model, "type", what, JsonFind(*model, "merges") != nullptr ? "BPE" : ""));
  if (type == "BPE") {
    MOESAIC_ASSIGN_OR_RETURN(model_, ParseBpeModel(*model, what));
  } else if (type == "Unigram") {
    MOESAIC_ASSIGN_OR_RETURN(model_, ParseUnigramModel(*model, what));
  } else {
    return absl::InvalidArgumentError(
        StrCat(what, ": type \"", type, "\" is not supported; BPE and Unigram are"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> JsonTokenizer::Encode(std::string_view text,
                                                           const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        StrCat("text of ", text.size(), " bytes; at most ", kMaxTextBytes, " are tokenized"));
  }
  if (const std::optional<size_t> offset = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(StrCat("text is not UTF-8 at byte ", *offset));
  }
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = post_processor_.before;
  for (const AddedTokens::Part& part : added_.SplitRaw(text, options.parse_special_tokens)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    MOESAIC_RETURN_IF_ERROR(
        EncodePart(text.substr(part.span.begin, part.span.end - part.span.begin),
                   /*starts_request=*/part.span.begin == 0, options, &ids));
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), post_processor_.after.begin(), post_processor_.after.end());
  }
  return ids;
}

absl::Status JsonTokenizer::EncodePart(std::string_view text,
                                       bool starts_request,
                                       const EncodeOptions& options,
                                       std::vector<int32_t>* ids) const {
  std::string normalized(text);
  MOESAIC_RETURN_IF_ERROR(normalizer_->Apply(&normalized));
  for (const AddedTokens::Part& part :
       added_.SplitNormalized(normalized, options.parse_special_tokens)) {
    if (part.id >= 0) {
      ids->push_back(part.id);
      continue;
    }
    PreTokenizedText pieces;
    pieces.text = normalized.substr(part.span.begin, part.span.end - part.span.begin);
    pieces.pieces = {{0, pieces.text.size()}};
    pieces.starts_request = starts_request && part.span.begin == 0;
    MOESAIC_RETURN_IF_ERROR(pre_tokenizer_->Apply(&pieces));
    MOESAIC_RETURN_IF_ERROR(model_->Tokenize(pieces, ids));
  }
  return absl::OkStatus();
}

JsonDecodeStream::JsonDecodeStream(const JsonTokenizer& tokenizer, const DecodeOptions& options)
    : tokenizer_(tokenizer),
      skip_special_tokens_(options.skip_special_tokens),
      stream_(tokenizer.decoder()) {}

void JsonDecodeStream::Push(int32_t id, std::string* out) {
  if (!tokenizer_.Contains(id)) return;
  if (skip_special_tokens_ && tokenizer_.IsSpecial(id)) return;
  stream_.Push(tokenizer_.Token(id), out);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizerJson(std::string_view json) {
  MOESAIC_ASSIGN_OR_RETURN(const Json document, ParseJson(json, kFile));
  auto tokenizer = std::make_unique<JsonTokenizer>();
  MOESAIC_RETURN_IF_ERROR(tokenizer->Load(document));
  return tokenizer;
}

}  // namespace moesaic
