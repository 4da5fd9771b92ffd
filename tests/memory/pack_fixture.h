#pragma once

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status_macros.h"
#include "memory/pack_writer.h"
#include "tests/checkpoint/test_files.h"

namespace moesaic {

// A small pack whose every stripe can be told from every other.

inline PackIdentity TestIdentity() {
  return {.model = {.high = 0x0123456789abcdef, .low = 42},
          .dtype = DType::kBFloat16,
          .gated = true,
          .hidden = 32,
          .units = 100,
          .units_per_stripe = 64,
          .stripe_bytes = 8000,
          .shape = {.num_layers = 3, .num_experts = 4, .stripes_per_expert = 2, .slot_bytes = 8192},
          .inner_order = "panel32"};
}

// Bytes [0, count) of the stripe, as a packer would write them.
inline void FillStripe(int64_t index, std::byte* out, int64_t count) {
  uint64_t state = static_cast<uint64_t>(index) + 1;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    out[i] = static_cast<std::byte>(state >> 56);
  }
}

inline std::vector<std::byte> ExpectedSlot(const PackIdentity& identity, int64_t index) {
  std::vector<std::byte> slot(identity.shape.slot_bytes);
  FillStripe(index, slot.data(), identity.stripe_bytes);
  return slot;
}

// Packs one layer by one worker.
inline absl::Status PackLayer(const PackIdentity& identity, ExpertSink& sink, int32_t layer) {
  const PackGeometry geometry = *MakePackGeometry(identity.shape);
  for (int64_t i = 0; i < geometry.layer_stripes(); ++i) {
    const int64_t index = layer * geometry.layer_stripes() + i;
    const StripeId id = geometry.Id(index);
    FillStripe(index, sink.BeginStripe(id, 0), identity.stripe_bytes);
    MOESAIC_RETURN_IF_ERROR(sink.FinishStripe(id, 0));
  }
  return sink.FinishLayer(layer);
}

// The pack of `identity` in `folder`, written now unless it is there already.
inline absl::StatusOr<std::shared_ptr<const ExpertPack>> MakePack(
    const std::filesystem::path& folder, const PackIdentity& identity) {
  MOESAIC_ASSIGN_OR_RETURN(PackSession session, OpenOrCreatePack(folder, identity, 1));
  if (session.pack != nullptr) return session.pack;
  for (int32_t layer = 0; layer < identity.shape.num_layers; ++layer) {
    if (session.writer->HasLayer(layer)) continue;
    MOESAIC_RETURN_IF_ERROR(PackLayer(identity, *session.writer, layer));
  }
  return session.writer->Finish();
}

// Changes bytes of a file in place.
inline void FlipBit(const std::filesystem::path& path, int64_t offset, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(offset);
  char byte = 0;
  file.get(byte);
  file.seekp(offset);
  file.put(static_cast<char>(byte ^ (1 << bit)));
}

}  // namespace moesaic
