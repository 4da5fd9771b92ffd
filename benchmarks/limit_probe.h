#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/aligned_buffer.h"
#include "base/dtype.h"
#include "base/isa.h"
#include "base/thread_pool.h"

namespace moesaic {

// What this machine can do at most, measured in short slices: a benchmark alternates them with its
// own so that both see the same clock and the same neighbours.
//
// Thread: one; each slice uses all threads of `pool`, which must outlive the probe.
class LimitProbe {
 public:
  // Reads `read_bytes` of random data on 2 MiB pages, at least 1 GiB for a figure that no cache
  // flatters. ResourceExhausted when that much memory cannot be had.
  static absl::StatusOr<std::unique_ptr<LimitProbe>> Create(ThreadPool& pool,
                                                            Isa isa,
                                                            int64_t read_bytes);

  // Bytes per second that all threads together read from memory.
  double ReadBytesPerSecond(absl::Duration slice);
  // Floating-point operations per second of a loop in registers: the instruction that `isa` has for
  // products of `dtype`, or FMA on float32 where it has none.
  double FlopsPerSecond(DType dtype, absl::Duration slice);

 private:
  LimitProbe(ThreadPool& pool, Isa isa, AlignedBuffer buffer)
      : pool_(pool), isa_(isa), buffer_(std::move(buffer)) {}

  // Runs `work(worker)`, which returns its amount of work, on every thread until `slice` is over.
  template <class Work>
  double Rate(absl::Duration slice, Work work);

  ThreadPool& pool_;
  const Isa isa_;
  AlignedBuffer buffer_;
};

}  // namespace moesaic
