#include "tokenizer/tokenizer_json.h"

#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "checkpoint/json.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/token_model.h"
#include "tokenizer/tokenizer_base.h"

namespace moesaic {
namespace {

constexpr std::string_view kFile = "tokenizer.json";

class JsonTokenizer final : public TokenizerBase {
 public:
  absl::Status Load(const Json& json);

 private:
  absl::Status LoadModel(const Json& json);

  const Vocabulary& vocabulary() const override { return model_->vocabulary(); }
  absl::Status Normalize(std::string* text) const override { return normalizer_->Apply(text); }
  absl::Status Tokenize(std::string text,
                        bool starts_request,
                        std::vector<int32_t>* ids) const override;

  std::unique_ptr<TokenModel> model_;
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
};

absl::Status JsonTokenizer::Load(const Json& json) {
  if (!json.is_object()) return absl::InvalidArgumentError(StrCat(kFile, " is not an object"));
  const Json missing;
  const auto field = [&](const char* name) -> const Json& {
    const Json* value = JsonFind(json, name);
    return value != nullptr ? *value : missing;
  };
  const auto path = [](std::string_view name) { return StrCat(kFile, ": ", name); };
  MOESAIC_RETURN_IF_ERROR(LoadModel(json));
  MOESAIC_ASSIGN_OR_RETURN(normalizer_, ParseNormalizer(field("normalizer"), path("normalizer")));
  MOESAIC_ASSIGN_OR_RETURN(pre_tokenizer_,
                           ParsePreTokenizer(field("pre_tokenizer"), path("pre_tokenizer")));
  MOESAIC_ASSIGN_OR_RETURN(added_, AddedTokens::Parse(field("added_tokens"), path("added_tokens"),
                                                      vocabulary(), *normalizer_));
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

absl::Status JsonTokenizer::Tokenize(std::string text,
                                     bool starts_request,
                                     std::vector<int32_t>* ids) const {
  PreTokenizedText pieces;
  pieces.text = std::move(text);
  pieces.pieces = {{0, pieces.text.size()}};
  pieces.starts_request = starts_request;
  MOESAIC_RETURN_IF_ERROR(pre_tokenizer_->Apply(&pieces));
  return model_->Tokenize(pieces, ids);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizerJson(std::string_view json) {
  MOESAIC_ASSIGN_OR_RETURN(const Json document, ParseJson(json, kFile));
  auto tokenizer = std::make_unique<JsonTokenizer>();
  MOESAIC_RETURN_IF_ERROR(tokenizer->Load(document));
  return tokenizer;
}

}  // namespace moesaic
