#include "tokenizer/decoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/split.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

namespace moesaic {
namespace {

using Kind = DecoderStep::Kind;

// How the tokens arrive at the next step.
enum class Flow { kWholeTokens, kPartsOfTokens, kPartsOfOneToken };

absl::Status ParseReplace(const Json& json, const std::string& what, DecoderStep* step) {
  MOESAIC_ASSIGN_OR_RETURN(step->content, JsonString(json, "content", what));
  const Json* pattern = JsonFind(json, "pattern");
  if (pattern == nullptr || !pattern->is_object()) {
    return absl::InvalidArgumentError(StrCat(what, ": pattern is not an object"));
  }
  if (JsonFind(*pattern, "Regex") != nullptr) {
    if (!step->whole_tokens) {
      return absl::InvalidArgumentError(
          StrCat(what, ": a regular expression over fused tokens is not supported"));
    }
    MOESAIC_ASSIGN_OR_RETURN(const std::string text, JsonString(*pattern, "Regex", what));
    MOESAIC_ASSIGN_OR_RETURN(step->regex, Regex::Compile(text, what));
    return absl::OkStatus();
  }
  MOESAIC_ASSIGN_OR_RETURN(step->pattern, JsonString(*pattern, "String", what));
  if (step->pattern.empty()) {
    return absl::InvalidArgumentError(StrCat(what, ": pattern.String is empty"));
  }
  return absl::OkStatus();
}

absl::Status ParseMetaspace(const Json& json, const std::string& what, DecoderStep* step) {
  MOESAIC_ASSIGN_OR_RETURN(step->pattern, JsonString(json, "replacement", what, "\xE2\x96\x81"));
  if (step->pattern.empty()) {
    return absl::InvalidArgumentError(StrCat(what, ": replacement is empty"));
  }
  MOESAIC_ASSIGN_OR_RETURN(const bool add_prefix_space,
                           JsonBool(json, "add_prefix_space", what, true));
  MOESAIC_ASSIGN_OR_RETURN(
      const std::string scheme,
      JsonString(json, "prepend_scheme", what, add_prefix_space ? "always" : "never"));
  step->drop_first = scheme != "never";
  step->content = " ";
  return absl::OkStatus();
}

absl::Status ParseStrip(const Json& json, const std::string& what, DecoderStep* step) {
  constexpr int64_t kMaxStripped = 1024;  // of which a stream may hold back that many
  MOESAIC_ASSIGN_OR_RETURN(step->content, JsonString(json, "content", what));
  size_t end = 0;
  if (!step->content.empty()) NextCodePoint(step->content, &end);
  if (step->content.empty() || end != step->content.size()) {
    return absl::InvalidArgumentError(StrCat(what, ": content is not one character"));
  }
  MOESAIC_ASSIGN_OR_RETURN(const int64_t start, JsonInt(json, "start", what, 0, kMaxStripped));
  MOESAIC_ASSIGN_OR_RETURN(const int64_t stop, JsonInt(json, "stop", what, 0, kMaxStripped));
  step->start = static_cast<size_t>(start);
  step->stop = static_cast<size_t>(stop);
  return absl::OkStatus();
}

absl::Status ParseStep(const Json& json,
                       const std::string& what,
                       Flow* flow,
                       std::vector<DecoderStep>* steps);

absl::Status ParseSequence(const Json& json,
                           const std::string& what,
                           Flow* flow,
                           std::vector<DecoderStep>* steps) {
  const Json* list = JsonFind(json, "decoders");
  if (list == nullptr || !list->is_array()) {
    return absl::InvalidArgumentError(StrCat(what, ".decoders is not a list"));
  }
  for (size_t i = 0; i < list->size(); ++i) {
    MOESAIC_RETURN_IF_ERROR(ParseStep((*list)[i], StrCat(what, ".decoders[", i, "]"), flow, steps));
  }
  return absl::OkStatus();
}

absl::Status ParseStep(const Json& json,
                       const std::string& what,
                       Flow* flow,
                       std::vector<DecoderStep>* steps) {
  if (!json.is_object()) return absl::InvalidArgumentError(StrCat(what, " is not an object"));
  MOESAIC_ASSIGN_OR_RETURN(const std::string type, JsonString(json, "type", what));
  if (type == "Sequence") return ParseSequence(json, what, flow, steps);
  DecoderStep step;
  step.whole_tokens = *flow == Flow::kWholeTokens;
  if (type == "Fuse") {
    step.kind = Kind::kFuse;
    *flow = Flow::kPartsOfOneToken;
  } else if (type == "ByteLevel") {
    step.kind = Kind::kByteLevel;
    *flow = Flow::kPartsOfOneToken;
    if (!step.whole_tokens) {
      return absl::InvalidArgumentError(StrCat(what, ": ByteLevel must be the first decoder"));
    }
  } else if (type == "ByteFallback") {
    step.kind = Kind::kByteFallback;
    if (!step.whole_tokens) {
      return absl::InvalidArgumentError(StrCat(what, ": ByteFallback behind fused tokens"));
    }
    *flow = Flow::kPartsOfTokens;
  } else if (*flow == Flow::kPartsOfTokens) {
    return absl::InvalidArgumentError(
        StrCat(what, ": only Fuse is supported behind ByteFallback, not ", type));
  } else if (type == "Replace") {
    step.kind = Kind::kReplace;
    MOESAIC_RETURN_IF_ERROR(ParseReplace(json, what, &step));
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    MOESAIC_RETURN_IF_ERROR(ParseStrip(json, what, &step));
  } else if (type == "Metaspace" && step.whole_tokens) {
    step.kind = Kind::kMetaspace;
    MOESAIC_RETURN_IF_ERROR(ParseMetaspace(json, what, &step));
  } else {
    return absl::InvalidArgumentError(StrCat(what, ": type \"", type, "\" is not supported"));
  }
  steps->push_back(std::move(step));
  return absl::OkStatus();
}

std::string ReplaceAll(std::string_view text, const DecoderStep& step) {
  std::vector<Span> matches;
  if (step.regex != nullptr) {
    // A token on which the expression gives up stays as it is.
    if (!step.regex->FindAll(text, &matches).ok()) return std::string(text);
  } else {
    matches = FindString(text, step.pattern);
  }
  std::string replaced;
  size_t end = 0;
  for (const Span& match : matches) {
    replaced += text.substr(end, match.begin - end);
    replaced += step.content;
    end = match.end;
  }
  replaced += text.substr(end);
  return replaced;
}

// The longest suffix of `text` that is a proper prefix of `pattern`.
size_t LongestPartialMatch(std::string_view text, std::string_view pattern) {
  for (size_t length = std::min(text.size(), pattern.size() - 1); length > 0; --length) {
    if (text.ends_with(pattern.substr(0, length))) return length;
  }
  return 0;
}

}  // namespace

absl::StatusOr<std::vector<DecoderStep>> ParseDecoder(const Json& json, const std::string& what) {
  std::vector<DecoderStep> steps;
  if (json.is_null()) {
    steps.emplace_back();
    return steps;
  }
  Flow flow = Flow::kWholeTokens;
  MOESAIC_RETURN_IF_ERROR(ParseStep(json, what, &flow, &steps));
  return steps;
}

DecoderStream::DecoderStream(const std::vector<DecoderStep>& steps)
    : steps_(steps), states_(steps.size()) {}

void DecoderStream::Push(std::string_view token, std::string* out) {
  Feed(0, token, /*begins=*/true, out);
}

void DecoderStream::Flush(std::string* out) { Finish(0, out); }

void DecoderStream::Feed(size_t step, std::string_view text, bool begins, std::string* out) {
  if (step == steps_.size()) {
    out->append(text);
    return;
  }
  State& state = states_[step];
  switch (steps_[step].kind) {
    case Kind::kJoin:
      if (state.begun) Feed(step + 1, " ", /*begins=*/false, out);
      Feed(step + 1, text, begins, out);
      state.begun = true;
      break;
    case Kind::kFuse:
      Feed(step + 1, text, !state.begun, out);
      state.begun = true;
      break;
    case Kind::kByteLevel:
      FeedByteLevel(step, text, out);
      break;
    case Kind::kByteFallback:
      FeedByteFallback(step, text, out);
      break;
    case Kind::kReplace:
      FeedReplace(step, text, begins, out);
      break;
    case Kind::kStrip:
      FeedStrip(step, text, begins, out);
      break;
    case Kind::kMetaspace:
      FeedMetaspace(step, text, begins, out);
      break;
  }
}

void DecoderStream::Finish(size_t step, std::string* out) {
  if (step == steps_.size()) return;
  State& state = states_[step];
  switch (steps_[step].kind) {
    case Kind::kByteLevel:
    case Kind::kByteFallback:
      EmitCharacters(step, /*all=*/true, out);
      break;
    case Kind::kReplace:
      if (!state.pending.empty()) {
        Feed(step + 1, state.pending, /*begins=*/!state.begun, out);
        state.pending.clear();
      }
      break;
    default:
      break;  // what kStrip holds back is what it strips
  }
  Finish(step + 1, out);
}

void DecoderStream::FeedByteLevel(size_t step, std::string_view token, std::string* out) {
  std::string bytes;
  for (size_t pos = 0; pos < token.size();) {
    const std::optional<uint8_t> byte = ByteOfByteLevel(NextCodePoint(token, &pos));
    if (!byte) {
      // Not written in the byte level's characters: an added token, which is text already.
      bytes = token;
      break;
    }
    bytes.push_back(static_cast<char>(*byte));
  }
  states_[step].pending += bytes;
  EmitCharacters(step, /*all=*/false, out);
}

void DecoderStream::FeedByteFallback(size_t step, std::string_view token, std::string* out) {
  State& state = states_[step];
  if (const std::optional<uint8_t> byte = ByteOfToken(token)) {
    if (!state.in_bytes) state.begun = false;
    state.in_bytes = true;
    state.pending.push_back(static_cast<char>(*byte));
    EmitCharacters(step, /*all=*/false, out);
    return;
  }
  EmitCharacters(step, /*all=*/true, out);
  state.in_bytes = false;
  Feed(step + 1, token, /*begins=*/true, out);
}

void DecoderStream::EmitCharacters(size_t step, bool all, std::string* out) {
  State& state = states_[step];
  const bool byte_fallback = steps_[step].kind == Kind::kByteFallback;
  std::string characters;
  size_t pos = 0;
  while (pos < state.pending.size()) {
    const std::string_view rest = std::string_view(state.pending).substr(pos);
    Utf8Scan scan = ScanUtf8(rest);
    if (scan.kind == Utf8Prefix::kCharacter) {
      characters += rest.substr(0, scan.length);
    } else if (scan.kind == Utf8Prefix::kIncomplete && !all) {
      break;
    } else {
      // Hugging Face's byte fallback replaces each bad byte, its byte level each broken character.
      if (byte_fallback) scan.length = 1;
      characters += kReplacementCharacter;
    }
    pos += scan.length;
  }
  state.pending.erase(0, pos);
  if (characters.empty()) return;
  Feed(step + 1, characters, /*begins=*/!state.begun, out);
  state.begun = true;
}

void DecoderStream::FeedReplace(size_t step, std::string_view text, bool begins, std::string* out) {
  if (steps_[step].whole_tokens) {
    Feed(step + 1, ReplaceAll(text, steps_[step]), begins, out);
    return;
  }
  State& state = states_[step];
  state.pending += text;
  const std::string& pattern = steps_[step].pattern;
  std::string replaced;
  size_t done = 0;
  for (size_t found = state.pending.find(pattern); found != std::string::npos;
       found = state.pending.find(pattern, done)) {
    replaced.append(state.pending, done, found - done);
    replaced += steps_[step].content;
    done = found + pattern.size();
  }
  const size_t held_back =
      LongestPartialMatch(std::string_view(state.pending).substr(done), pattern);
  replaced.append(state.pending, done, state.pending.size() - done - held_back);
  state.pending.erase(0, state.pending.size() - held_back);
  if (replaced.empty()) return;
  Feed(step + 1, replaced, /*begins=*/!state.begun, out);
  state.begun = true;
}

void DecoderStream::FeedStrip(size_t step, std::string_view text, bool begins, std::string* out) {
  const DecoderStep& strip = steps_[step];
  State& state = states_[step];
  if (begins) {
    state.pending.clear();  // the last token's end
    state.stripped = 0;
    state.at_start = true;
  }
  std::string passed = std::move(state.pending);
  state.pending.clear();
  while (state.at_start && !text.empty()) {
    if (state.stripped == strip.start || !text.starts_with(strip.content)) {
      state.at_start = false;
    } else {
      text.remove_prefix(strip.content.size());
      ++state.stripped;
    }
  }
  passed += text;
  size_t kept = passed.size();
  for (size_t i = 0; i < strip.stop; ++i) {
    if (!std::string_view(passed).substr(0, kept).ends_with(strip.content)) break;
    kept -= strip.content.size();
  }
  state.pending = passed.substr(kept);
  passed.resize(kept);
  if (begins || !passed.empty()) Feed(step + 1, passed, begins, out);
}

void DecoderStream::FeedMetaspace(size_t step,
                                  std::string_view text,
                                  bool begins,
                                  std::string* out) {
  State& state = states_[step];
  std::string replaced;
  size_t end = 0;
  for (const Span& match : FindString(text, steps_[step].pattern)) {
    replaced += text.substr(end, match.begin - end);
    if (state.begun || !steps_[step].drop_first) replaced += steps_[step].content;
    end = match.end;
  }
  replaced += text.substr(end);
  state.begun = true;
  Feed(step + 1, replaced, begins, out);
}

}  // namespace moesaic
