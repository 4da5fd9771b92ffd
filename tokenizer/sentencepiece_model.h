#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace moesaic {

// What a SentencePiece tokenizer.model holds (a serialised sentencepiece.ModelProto). It is read
// here and not by the library, which brings a Protobuf of its own that breaks the server's.
struct SentencePieceModel {
  enum class Type { kUnigram = 1, kBpe = 2 };
  enum class PieceType {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string text;
    float score = 0.0f;
    PieceType type = PieceType::kNormal;
  };

  std::vector<Piece> pieces;  // by id
  Type type = Type::kUnigram;
  bool byte_fallback = false;
  int32_t unknown_id = 0;
  int32_t bos_id = -1;               // -1: none
  int32_t eos_id = -1;               // -1: none
  std::string precompiled_charsmap;  // bytes
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

// InvalidArgument for what is malformed or unsupported.
absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes);

}  // namespace moesaic
