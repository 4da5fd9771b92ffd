#include "tokenizer/post_processor.h"

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/vocabulary.h"

namespace moesaic {
namespace {

// The ids of one special token of a template.
absl::StatusOr<std::vector<int32_t>> TemplateIds(const Json& json,
                                                 const std::string& token,
                                                 const std::string& what) {
  const Json* tokens = JsonFind(json, "special_tokens");
  const Json* entry = tokens != nullptr ? JsonFind(*tokens, token.c_str()) : nullptr;
  const Json* ids = entry != nullptr ? JsonFind(*entry, "ids") : nullptr;
  const std::string where = StrCat(what, ".special_tokens.", token, ".ids");
  if (ids == nullptr || !ids->is_array()) {
    return absl::InvalidArgumentError(StrCat(where, " is not a list"));
  }
  std::vector<int32_t> checked;
  for (const Json& id : *ids) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kMaxTokenId) {
      return absl::InvalidArgumentError(StrCat(where, " holds what is no token id"));
    }
    checked.push_back(id.get<int32_t>());
  }
  return checked;
}

absl::StatusOr<PostProcessor> ParseTemplate(const Json& json, const std::string& what) {
  const Json* single = JsonFind(json, "single");
  if (single == nullptr || !single->is_array()) {
    return absl::InvalidArgumentError(StrCat(what, ".single is not a list"));
  }
  PostProcessor processor;
  int texts = 0;
  for (size_t i = 0; i < single->size(); ++i) {
    const Json& piece = (*single)[i];
    const std::string where = StrCat(what, ".single[", i, "]");
    if (!piece.is_object()) return absl::InvalidArgumentError(StrCat(where, " is not an object"));
    if (JsonFind(piece, "Sequence") != nullptr) {
      ++texts;
      continue;
    }
    const Json* special = JsonFind(piece, "SpecialToken");
    if (special == nullptr || !special->is_object()) {
      return absl::InvalidArgumentError(StrCat(where, " is neither a Sequence nor a SpecialToken"));
    }
    MOESAIC_ASSIGN_OR_RETURN(const std::string token, JsonString(*special, "id", where));
    MOESAIC_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, TemplateIds(json, token, what));
    std::vector<int32_t>& side = texts == 0 ? processor.before : processor.after;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (texts != 1) {
    return absl::InvalidArgumentError(
        StrCat(what, ".single holds the text ", texts, " times; only once is supported"));
  }
  return processor;
}

// The id of ["</s>", 2].
absl::StatusOr<int32_t> PairId(const Json& json, const char* field, const std::string& what) {
  const Json* pair = JsonFind(json, field);
  if (pair == nullptr || !pair->is_array() || pair->size() != 2 ||
      !(*pair)[1].is_number_unsigned() || (*pair)[1].get<uint64_t>() > kMaxTokenId) {
    return absl::InvalidArgumentError(StrCat(what, ".", field, " is not a token with its id"));
  }
  return (*pair)[1].get<int32_t>();
}

}  // namespace

absl::StatusOr<PostProcessor> ParsePostProcessor(const Json& json, const std::string& what) {
  PostProcessor processor;
  if (json.is_null()) return processor;
  if (!json.is_object()) return absl::InvalidArgumentError(StrCat(what, " is not an object"));
  MOESAIC_ASSIGN_OR_RETURN(const std::string type, JsonString(json, "type", what));
  if (type == "ByteLevel") return processor;  // moves offsets only
  if (type == "TemplateProcessing") return ParseTemplate(json, what);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    MOESAIC_ASSIGN_OR_RETURN(const int32_t first, PairId(json, "cls", what));
    MOESAIC_ASSIGN_OR_RETURN(const int32_t last, PairId(json, "sep", what));
    return PostProcessor{{first}, {last}};
  }
  if (type == "Sequence") {
    const Json* list = JsonFind(json, "processors");
    if (list == nullptr || !list->is_array()) {
      return absl::InvalidArgumentError(StrCat(what, ".processors is not a list"));
    }
    for (size_t i = 0; i < list->size(); ++i) {
      MOESAIC_ASSIGN_OR_RETURN(
          const PostProcessor step,
          ParsePostProcessor((*list)[i], StrCat(what, ".processors[", i, "]")));
      processor.before.insert(processor.before.begin(), step.before.begin(), step.before.end());
      processor.after.insert(processor.after.end(), step.after.begin(), step.after.end());
    }
    return processor;
  }
  return absl::InvalidArgumentError(StrCat(what, ": type \"", type, "\" is not supported"));
}

}  // namespace moesaic
