#include "tests/memory/test_stripe_source.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>

#include "absl/status/status.h"
#include "memory/cpu_device.h"

namespace moesaic {
namespace {

uint32_t WordOf(const ExpertStore::Shape& shape, StripeId id) {
  return 0x51000000u +
         static_cast<uint32_t>((id.expert.layer * shape.num_experts + id.expert.index) *
                                   shape.stripes_per_expert +
                               id.stripe);
}

class RemoteStream final : public CopyStream {
 public:
  absl::StatusOr<CopyEvent> Copy(std::byte* to, const std::byte* from, size_t bytes) override {
    pending_.push_back({to, from, bytes});
    return done_ + pending_.size();
  }
  absl::StatusOr<bool> Poll(CopyEvent event) override {
    if (event > done_ && ++polls_ % 3 == 0) {
      std::memcpy(pending_.front().to, pending_.front().from, pending_.front().bytes);
      pending_.pop_front();
      ++done_;
    }
    return event <= done_;
  }

 private:
  struct Pending {
    std::byte* to;
    const std::byte* from;
    size_t bytes;
  };
  std::deque<Pending> pending_;
  CopyEvent done_ = 0;
  int polls_ = 0;
};

}  // namespace

TestStripeSource::TestStripeSource(const ExpertStore::Shape& shape)
    : store_(*ExpertStore::Create(shape)) {
  const StripeKeys keys = {shape.num_layers, shape.num_experts, shape.stripes_per_expert};
  for (int32_t stripe = 0; stripe < keys.stripes(); ++stripe) {
    auto* words = static_cast<uint32_t*>(store_.MutableStripe(keys.Id(stripe)));
    std::fill_n(words, shape.slot_bytes / sizeof(uint32_t), WordOf(shape, keys.Id(stripe)));
  }
  reads_.reserve(64);
}

void TestStripeSource::Hold(bool held) {
  {
    const std::lock_guard lock(mutex_);
    held_ = held;
  }
  Wake();
}

void TestStripeSource::Release(int count) {
  {
    const std::lock_guard lock(mutex_);
    released_ += count;
  }
  Wake();
}

std::vector<StripeId> TestStripeSource::WaitStarted(size_t count) {
  std::unique_lock lock(mutex_);
  started_changed_.wait(lock, [&] { return started_.size() >= count; });
  return started_;
}

size_t TestStripeSource::num_started() {
  const std::lock_guard lock(mutex_);
  return started_.size();
}

bool TestStripeSource::Matches(const void* data, StripeId id) const {
  return std::memcmp(data, store_.Stripe(id), store_.shape().slot_bytes) == 0;
}

const std::byte* TestStripeSource::HostStripe(StripeId id) const {
  return in_host_memory(id) ? static_cast<const std::byte*>(store_.Stripe(id)) : nullptr;
}

absl::Status TestStripeSource::StartRead(StripeId id, std::byte* slot, uint64_t token) {
  const std::lock_guard lock(mutex_);
  if (reads_.size() >= static_cast<size_t>(max_reads)) return absl::InternalError("too many reads");
  if (start_fault) {
    absl::Status status = start_fault(id);
    if (!status.ok()) return status;
  }
  started_.push_back(id);
  reads_.push_back({id, slot, token});
  started_changed_.notify_all();
  return absl::OkStatus();
}

void TestStripeSource::End(const Read& read, std::vector<Completion>& out) {
  absl::Status status = read_fault ? read_fault(read.id) : absl::OkStatus();
  if (status.ok()) {
    std::memcpy(read.slot, store_.Stripe(read.id), store_.shape().slot_bytes);
  } else {
    std::memset(read.slot, 0xEE, store_.shape().slot_bytes);
  }
  out.push_back({.token = read.token, .status = std::move(status)});
}

void TestStripeSource::WaitCompletions(absl::Time deadline, std::vector<Completion>& out) {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return woken_ || (!reads_.empty() && (!held_ || released_ > 0)); };
  if (deadline == absl::InfiniteFuture()) {
    wake_.wait(lock, ready);
  } else {
    wake_.wait_until(lock, absl::ToChronoTime(deadline), ready);
  }
  woken_ = false;
  const size_t few = held_ ? static_cast<size_t>(released_) : 1 + random_() % 3;
  for (size_t i = 0; i < few && !reads_.empty(); ++i) {
    const size_t chosen = held_ ? 0 : random_() % reads_.size();
    End(reads_[chosen], out);
    reads_.erase(reads_.begin() + static_cast<ptrdiff_t>(chosen));
    if (held_) --released_;
  }
}

void TestStripeSource::Wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  wake_.notify_one();
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> RemoteDevice::Allocate(size_t bytes,
                                                                     const char* what) {
  return CpuDevice(nullptr).Allocate(bytes, what);
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> RemoteDevice::AllocateHost(size_t bytes,
                                                                         const char* what) {
  return CpuDevice(nullptr).AllocateHost(bytes, what);
}

absl::StatusOr<std::unique_ptr<CopyStream>> RemoteDevice::CreateCopyStream() {
  return std::make_unique<RemoteStream>();
}

}  // namespace moesaic
