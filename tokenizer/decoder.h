#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/json.h"
#include "tokenizer/regex.h"

namespace moesaic {

// One step of turning tokens into text. It sees a stream of text, in which tokens begin; a step may
// pass a token on in parts, or hold back what later tokens decide.
struct DecoderStep {
  enum class Kind {
    kJoin,          // a space between tokens: what happens without a decoder
    kByteLevel,     // characters to bytes; the rest is one token
    kByteFallback,  // "<0x0A>" to bytes; a run of such tokens is one token
    kFuse,          // all tokens to one
    kReplace,       // `pattern`, in each token, by `content`
    kStrip,         // up to `start` times `content` at each token's start, `stop` times at its end
    kMetaspace,     // `pattern` to a space; in the first token, with `drop_first`, to nothing
  };

  Kind kind = Kind::kJoin;
  std::string pattern;
  std::shared_ptr<const Regex> regex;  // kReplace by expression; shared by the steps' copies
  std::string content;
  size_t start = 0;
  size_t stop = 0;
  bool drop_first = false;
  bool whole_tokens = true;  // each token arrives in one part
};

// From the `decoder` of tokenizer.json; null JSON joins tokens by spaces. `what` names `json` in
// errors. InvalidArgument for what is malformed or unsupported.
absl::StatusOr<std::vector<DecoderStep>> ParseDecoder(const Json& json, const std::string& what);

// The state of decoding one sequence of tokens. `steps` must outlive it. Thread: one.
class DecoderStream {
 public:
  explicit DecoderStream(const std::vector<DecoderStep>& steps);

  // Appends to `out` the text that no later token can change.
  void Push(std::string_view token, std::string* out);
  // Appends the rest; the stream is at its end.
  void Flush(std::string* out);

 private:
  // What one step remembers.
  struct State {
    std::string pending;    // bytes of an incomplete character, or text that may yet be rewritten
    bool begun = false;     // a token has begun
    bool in_bytes = false;  // kByteFallback: the last token was a byte
    size_t stripped = 0;    // kStrip: characters taken from the start of this token
    bool at_start = true;   // kStrip: nothing but those has come
  };

  // Hands `text` to step `step`; `begins`: a token begins here.
  void Feed(size_t step, std::string_view text, bool begins, std::string* out);
  void Finish(size_t step, std::string* out);

  void FeedByteLevel(size_t step, std::string_view token, std::string* out);
  void FeedByteFallback(size_t step, std::string_view token, std::string* out);
  // Passes on the complete characters of the pending bytes; with `all`, what is incomplete as well.
  void EmitCharacters(size_t step, bool all, std::string* out);
  void FeedReplace(size_t step, std::string_view text, bool begins, std::string* out);
  void FeedStrip(size_t step, std::string_view text, bool begins, std::string* out);
  void FeedMetaspace(size_t step, std::string_view text, bool begins, std::string* out);

  const std::vector<DecoderStep>& steps_;
  std::vector<State> states_;
};

}  // namespace moesaic
