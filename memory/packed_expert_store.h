#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/aligned_buffer.h"
#include "memory/disk_reader.h"
#include "memory/expert_pack.h"
#include "memory/stripe_source.h"

namespace moesaic {

// The experts of a pack: as many stripes as `host_bytes` hold lie in RAM (the host tier), the
// others are read from the disk when they are asked for. Whatever is read is checked against its
// checksum; a read that fails or gives wrong bytes is made once more, and then fails alone.
//
// Owner, threads, lifetime: StripeSource. No allocation after Create.
class PackedExpertStore : public StripeSource {
 public:
  struct Options {
    int64_t host_bytes = 0;  // never exceeded; more than all slots is no error
    // These first into the host tier; then the default order, which takes expert 0 of every layer,
    // then expert 1, and so on.
    std::span<const StripeId> host_order = {};
    DiskReader::Options reader = {};
  };

  // Fills the host tier, with a progress line. DataLoss when a stripe on the way is damaged, which
  // marks the pack (ExpertPack::MarkDamaged).
  static absl::StatusOr<std::unique_ptr<PackedExpertStore>> Create(
      std::shared_ptr<const ExpertPack> pack, const Options& options);
  // With the reader given rather than one of the pack's file.
  static absl::StatusOr<std::unique_ptr<PackedExpertStore>> Create(
      std::shared_ptr<const ExpertPack> pack,
      std::unique_ptr<DiskReader> reader,
      const Options& options);

  const ExpertStore::Shape& shape() const override { return pack_->shape(); }
  const std::byte* HostStripe(StripeId id) const override {
    return static_cast<const std::byte*>(stripes_[pack_->geometry().Index(id)]);
  }
  absl::Status StartRead(StripeId id, std::byte* slot, uint64_t token) override;
  void WaitCompletions(absl::Time deadline, std::vector<Completion>& out) override;
  void Wake() override { reader_->Wake(); }
  int max_reads_in_flight() const override { return static_cast<int>(reads_.size()); }

  int64_t host_bytes() const { return static_cast<int64_t>(host_.size()); }
  int64_t host_stripes() const { return host_bytes() / shape().slot_bytes; }
  bool all_in_host() const { return host_stripes() == pack_->geometry().num_stripes(); }
  // [num_experts * stripes_per_expert] of one layer as HostStripe() gives them.
  std::span<const void* const> LayerStripes(int32_t layer) const;
  const DiskReader& reader() const { return *reader_; }

 private:
  struct Read {
    int64_t index = 0;
    std::byte* slot = nullptr;
    uint64_t token = 0;
    bool again = false;
  };

  PackedExpertStore(std::shared_ptr<const ExpertPack> pack, std::unique_ptr<DiskReader> reader);
  absl::Status FillHostTier(const Options& options);
  void Start(int32_t read);
  // Checks a finished read; true when it is over, with its status in `status`.
  bool Finish(int32_t read, absl::Status& status);

  const std::shared_ptr<const ExpertPack> pack_;
  AlignedBuffer host_;
  std::vector<const void*> stripes_;  // by stripe index; null: on the disk
  std::vector<Read> reads_;
  std::vector<int32_t> free_reads_;
  std::vector<Completion> finished_;             // reads of stripes in the host tier
  std::vector<DiskReader::Completion> arrived_;  // scratch of WaitCompletions
  bool marked_ = false;
  // Last: its destructor waits for reads under way.
  const std::unique_ptr<DiskReader> reader_;
};

}  // namespace moesaic
