#include "tokenizer/sentencepiece_model.h"

#include <cstring>
#include <optional>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

namespace moesaic {
namespace {

absl::Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(StrCat("tokenizer.model: ", what));
}

// One field of a Protobuf message.
struct Field {
  uint32_t number = 0;
  uint64_t integer = 0;    // of a varint or a fixed-size field
  std::string_view bytes;  // of a length-delimited field
};

// The fields of a serialised Protobuf message, in order.
class MessageReader {
 public:
  explicit MessageReader(std::string_view message) : rest_(message) {}

  // False at the end. InvalidArgument when the message is cut off or uses groups.
  absl::StatusOr<bool> Next(Field* field) {
    if (rest_.empty()) return false;
    *field = Field();
    uint64_t key = 0;
    if (!ReadVarint(&key)) return Malformed("ends inside a field");
    field->number = static_cast<uint32_t>(key >> 3);
    uint64_t length = 0;
    switch (key & 7) {
      case 0:
        if (!ReadVarint(&field->integer)) return Malformed("ends inside a number");
        return true;
      case 1:
      case 5:
        length = (key & 7) == 1 ? 8 : 4;
        if (rest_.size() < length) return Malformed("ends inside a number");
        std::memcpy(&field->integer, rest_.data(), length);
        rest_.remove_prefix(length);
        return true;
      case 2:
        if (!ReadVarint(&length) || length > rest_.size()) return Malformed("ends inside a field");
        field->bytes = rest_.substr(0, length);
        rest_.remove_prefix(length);
        return true;
      default:
        return Malformed("is not a SentencePiece model");
    }
  }

 private:
  bool ReadVarint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  std::string_view rest_;
};

// Calls `visit` with each field of `message`.
template <typename Visitor>
absl::Status ForEachField(std::string_view message, const Visitor& visit) {
  MessageReader reader(message);
  Field field;
  while (true) {
    MOESAIC_ASSIGN_OR_RETURN(const bool more, reader.Next(&field));
    if (!more) return absl::OkStatus();
    MOESAIC_RETURN_IF_ERROR(visit(field));
  }
}

absl::StatusOr<SentencePieceModel::Piece> ParsePiece(std::string_view message) {
  SentencePieceModel::Piece piece;
  MOESAIC_RETURN_IF_ERROR(ForEachField(message, [&](const Field& field) -> absl::Status {
    if (field.number == 1) {
      piece.text = field.bytes;
    } else if (field.number == 2) {
      const auto bits = static_cast<uint32_t>(field.integer);
      std::memcpy(&piece.score, &bits, sizeof(bits));
    } else if (field.number == 3) {
      if (field.integer < 1 || field.integer > 6) return Malformed("has a piece of unknown type");
      piece.type = static_cast<SentencePieceModel::PieceType>(field.integer);
    }
    return absl::OkStatus();
  }));
  if (piece.text.empty() || FindInvalidUtf8(piece.text).has_value()) {
    return Malformed("has a piece that is empty or not UTF-8");
  }
  if (!(piece.score > -1e30f && piece.score < 1e30f)) {
    return Malformed("has a piece whose score is not finite");
  }
  return piece;
}

absl::Status ParseTrainerSpec(std::string_view message, SentencePieceModel* model) {
  return ForEachField(message, [&](const Field& field) -> absl::Status {
    switch (field.number) {
      case 3:
        if (field.integer != 1 && field.integer != 2) {
          return Malformed("is neither a Unigram nor a BPE model");
        }
        model->type = static_cast<SentencePieceModel::Type>(field.integer);
        break;
      case 24:
        if (field.integer != 0) return Malformed("treat_whitespace_as_suffix is not supported");
        break;
      case 35:
        model->byte_fallback = field.integer != 0;
        break;
      case 40:
        model->unknown_id = static_cast<int32_t>(field.integer);
        break;
      case 41:
        model->bos_id = static_cast<int32_t>(field.integer);
        break;
      case 42:
        model->eos_id = static_cast<int32_t>(field.integer);
        break;
      default:
        break;
    }
    return absl::OkStatus();
  });
}

absl::Status ParseNormalizerSpec(std::string_view message, SentencePieceModel* model) {
  return ForEachField(message, [&](const Field& field) -> absl::Status {
    switch (field.number) {
      case 2:
        model->precompiled_charsmap = field.bytes;
        break;
      case 3:
        model->add_dummy_prefix = field.integer != 0;
        break;
      case 4:
        model->remove_extra_whitespaces = field.integer != 0;
        break;
      case 5:
        if (field.integer == 0) return Malformed("escape_whitespaces=false is not supported");
        break;
      default:
        break;
    }
    return absl::OkStatus();
  });
}

// Whether `id` is that of a piece of `type`.
bool HasPiece(const SentencePieceModel& model, int32_t id, SentencePieceModel::PieceType type) {
  return id >= 0 && static_cast<size_t>(id) < model.pieces.size() &&
         model.pieces[static_cast<size_t>(id)].type == type;
}

}  // namespace

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view bytes) {
  SentencePieceModel model;
  // What the trainer's specification says when it leaves them out.
  model.bos_id = 1;
  model.eos_id = 2;
  MOESAIC_RETURN_IF_ERROR(ForEachField(bytes, [&](const Field& field) -> absl::Status {
    if (field.number == 1) {
      if (model.pieces.size() > kMaxTokenId) return Malformed("has too many pieces");
      MOESAIC_ASSIGN_OR_RETURN(SentencePieceModel::Piece piece, ParsePiece(field.bytes));
      model.pieces.push_back(std::move(piece));
    } else if (field.number == 2) {
      return ParseTrainerSpec(field.bytes, &model);
    } else if (field.number == 3) {
      return ParseNormalizerSpec(field.bytes, &model);
    }
    return absl::OkStatus();
  }));
  using PieceType = SentencePieceModel::PieceType;
  if (!HasPiece(model, model.unknown_id, PieceType::kUnknown)) {
    return Malformed("has no unknown token");
  }
  if (!HasPiece(model, model.bos_id, PieceType::kControl)) model.bos_id = -1;
  if (!HasPiece(model, model.eos_id, PieceType::kControl)) model.eos_id = -1;
  return model;
}

}  // namespace moesaic
