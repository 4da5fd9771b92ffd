#include "memory/packed_expert_store.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

// The stripes that the host tier takes, at most `count`, each once.
std::vector<int64_t> HostOrder(const PackGeometry& geometry,
                               std::span<const StripeId> first,
                               int64_t count) {
  const ExpertStore::Shape& shape = geometry.shape;
  std::vector<int64_t> order;
  order.reserve(count);
  std::vector<bool> taken(geometry.num_stripes());
  const auto take = [&](StripeId id) {
    if (static_cast<int64_t>(order.size()) == count) return;
    const int64_t index = geometry.Index(id);
    if (taken[index]) return;
    taken[index] = true;
    order.push_back(index);
  };
  for (const StripeId id : first) take(id);
  for (int32_t expert = 0; expert < shape.num_experts; ++expert) {
    for (int32_t layer = 0; layer < shape.num_layers; ++layer) {
      for (int32_t stripe = 0; stripe < shape.stripes_per_expert; ++stripe) {
        take({.expert = {.layer = layer, .index = expert}, .stripe = stripe});
      }
    }
  }
  // Read in the order of the file.
  std::sort(order.begin(), order.end());
  return order;
}

bool IsIn(const ExpertStore::Shape& shape, StripeId id) {
  return id.expert.layer >= 0 && id.expert.layer < shape.num_layers && id.expert.index >= 0 &&
         id.expert.index < shape.num_experts && id.stripe >= 0 &&
         id.stripe < shape.stripes_per_expert;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PackedExpertStore>> PackedExpertStore::Create(
    std::shared_ptr<const ExpertPack> pack, const Options& options) {
  MOESAIC_ASSIGN_OR_RETURN(
      std::unique_ptr<DiskReader> reader,
      DiskReader::Create(pack->descriptor(), pack->path().string(), options.reader));
  return Create(std::move(pack), std::move(reader), options);
}

absl::StatusOr<std::unique_ptr<PackedExpertStore>> PackedExpertStore::Create(
    std::shared_ptr<const ExpertPack> pack,
    std::unique_ptr<DiskReader> reader,
    const Options& options) {
  std::unique_ptr<PackedExpertStore> store(
      new PackedExpertStore(std::move(pack), std::move(reader)));
  MOESAIC_RETURN_IF_ERROR(store->FillHostTier(options));
  return store;
}

PackedExpertStore::PackedExpertStore(std::shared_ptr<const ExpertPack> pack,
                                     std::unique_ptr<DiskReader> reader)
    : pack_(std::move(pack)),
      stripes_(pack_->geometry().num_stripes()),
      reads_(reader->max_reads()),
      reader_(std::move(reader)) {
  for (int32_t i = static_cast<int32_t>(reads_.size()) - 1; i >= 0; --i) free_reads_.push_back(i);
  finished_.reserve(reads_.size());
  arrived_.reserve(reads_.size());
}

absl::Status PackedExpertStore::FillHostTier(const Options& options) {
  for (const StripeId id : options.host_order) {
    if (!IsIn(shape(), id)) return absl::InvalidArgumentError("host order: no such stripe");
  }
  const int64_t slot_bytes = shape().slot_bytes;
  const int64_t count =
      std::clamp<int64_t>(options.host_bytes / slot_bytes, 0, pack_->geometry().num_stripes());
  if (count == 0) return absl::OkStatus();
  MOESAIC_ASSIGN_OR_RETURN(host_, AlignedBuffer::Allocate(count * slot_bytes, "experts"));
  const std::vector<int64_t> order = HostOrder(pack_->geometry(), options.host_order, count);
  ProgressLine progress("reading experts", static_cast<uint64_t>(count * slot_bytes));
  std::vector<Completion> completions;
  absl::Status status;
  int64_t started = 0;
  int64_t finished = 0;
  while (finished < started || (status.ok() && started < count)) {
    while (status.ok() && started < count && !free_reads_.empty()) {
      const StripeId id = pack_->geometry().Id(order[started]);
      status = StartRead(id, host_.data() + started * slot_bytes, started);
      if (status.ok()) ++started;
    }
    WaitCompletions(absl::InfiniteFuture(), completions);
    for (Completion& completion : completions) {
      ++finished;
      progress.Advance(slot_bytes);
      if (!completion.status.ok() && status.ok()) status = std::move(completion.status);
    }
    completions.clear();
  }
  MOESAIC_RETURN_IF_ERROR(status);
  for (int64_t i = 0; i < count; ++i) stripes_[order[i]] = host_.data() + i * slot_bytes;
  return absl::OkStatus();
}

std::span<const void* const> PackedExpertStore::LayerStripes(int32_t layer) const {
  const int64_t count = pack_->geometry().layer_stripes();
  return std::span<const void* const>(stripes_).subspan(layer * count, count);
}

absl::Status PackedExpertStore::StartRead(StripeId id, std::byte* slot, uint64_t token) {
  if (free_reads_.empty()) {
    return absl::ResourceExhaustedError(
        StrCat("more than ", reads_.size(), " reads of experts at a time"));
  }
  if (const std::byte* host = HostStripe(id); host != nullptr) {
    std::memcpy(slot, host, shape().slot_bytes);
    finished_.push_back({.token = token, .status = absl::OkStatus()});
    return absl::OkStatus();
  }
  const int32_t read = free_reads_.back();
  free_reads_.pop_back();
  reads_[read] = {.index = pack_->geometry().Index(id), .slot = slot, .token = token};
  Start(read);
  return absl::OkStatus();
}

void PackedExpertStore::Start(int32_t read) {
  reader_->Start(pack_->geometry().StripeOffset(reads_[read].index), reads_[read].slot,
                 shape().slot_bytes, static_cast<uint64_t>(read));
}

void PackedExpertStore::WaitCompletions(absl::Time deadline, std::vector<Completion>& out) {
  const size_t before = out.size();
  out.insert(out.end(), std::make_move_iterator(finished_.begin()),
             std::make_move_iterator(finished_.end()));
  finished_.clear();
  // One look at the disk even so: copies from the host tier must not keep it waiting.
  reader_->Wait(out.size() > before ? absl::InfinitePast() : deadline, arrived_);
  for (DiskReader::Completion& arrived : arrived_) {
    const int32_t number = static_cast<int32_t>(arrived.token);
    if (!Finish(number, arrived.status)) continue;
    out.push_back({.token = reads_[number].token, .status = std::move(arrived.status)});
    free_reads_.push_back(number);
  }
  arrived_.clear();
}

bool PackedExpertStore::Finish(int32_t number, absl::Status& status) {
  Read& read = reads_[number];
  if (status.ok()) {
    status = pack_->Verify(read.index, {read.slot, static_cast<size_t>(shape().slot_bytes)});
    if (status.ok()) return true;
  } else {
    status =
        absl::Status(status.code(), StrCat(pack_->Describe(read.index), ": ", status.message()));
  }
  if (!read.again) {
    spdlog::warn("reading again: {}", std::string(status.message()));
    read.again = true;
    Start(number);
    return false;
  }
  spdlog::error("{}", std::string(status.message()));
  // A disk that does not answer says nothing about what is on it.
  if (absl::IsDataLoss(status) && !marked_) {
    marked_ = true;
    pack_->MarkDamaged();
  }
  return true;
}

}  // namespace moesaic
