#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace moesaic {

struct EncodeOptions {
  bool add_special_tokens = true;  // run the post-processor (BOS, EOS)
  bool parse_special_tokens =
      true;  // "<|endoftext|>" in the text becomes its id, as in Hugging Face
};

struct DecodeOptions {
  bool skip_special_tokens = true;
};

// The state of decoding one sequence of ids, token by token. Thread: one.
class DecodeStream {
 public:
  virtual ~DecodeStream() = default;
  // Appends to `out` the text that no later id can change: whole characters only. What is held back
  // is at most a few tokens' worth. An id outside the vocabulary is skipped.
  virtual void Push(int32_t id, std::string* out) = 0;
  // Appends what was held back: U+FFFD for an incomplete character. Nothing may follow.
  virtual void Flush(std::string* out) = 0;
};

// Text to token ids and back; ids are those of Hugging Face `tokenizers` on the same
// tokenizer.json, or of SentencePiece on tokenizer.model. Immutable after Load: any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads tokenizer.json, else tokenizer.model, of a model folder. NotFound when it has neither;
  // InvalidArgument naming file and field for anything malformed or unsupported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& folder);

  // InvalidArgument with the byte offset when `text` is not UTF-8.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      const EncodeOptions& options) const = 0;
  // Ids outside the vocabulary are skipped. May end in U+FFFD when the ids end inside a character.
  // Bytes that are no UTF-8 become U+FFFD as in Hugging Face, except that a run of byte-fallback
  // tokens ("<0xE2>") keeps its valid characters, which a stream has already shown.
  std::string Decode(std::span<const int32_t> ids, const DecodeOptions& options) const;
  // Decode bit by bit. The tokenizer must outlive it.
  virtual std::unique_ptr<DecodeStream> NewDecodeStream(const DecodeOptions& options) const = 0;

  virtual int32_t vocab_size() const = 0;  // highest id + 1, added tokens included
  virtual bool IsSpecial(int32_t id) const = 0;
  virtual std::optional<int32_t> TokenToId(std::string_view token) const = 0;
  // The token as it stands in the vocabulary; empty for an id outside it.
  virtual std::string IdToToken(int32_t id) const = 0;
};

// Turns a stream of ids into text, never emitting part of a character. The concatenation of
// everything returned is Decode of all ids (a text that ends inside a character: with its U+FFFD,
// from Flush). Thread: one.
class IncrementalDetokenizer {
 public:
  // `tokenizer` must outlive this. `context`: ids before the first new one, which decide a leading
  // space.
  IncrementalDetokenizer(const Tokenizer& tokenizer,
                         const DecodeOptions& options,
                         std::span<const int32_t> context = {});

  // The new complete text; empty while a character is incomplete. Amortised constant time per id.
  std::string Push(int32_t id);
  std::string Flush();

 private:
  std::unique_ptr<DecodeStream> stream_;
};

}  // namespace moesaic
