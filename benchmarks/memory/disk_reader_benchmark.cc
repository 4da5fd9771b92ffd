// What DiskReader gets out of the disk beside a plain sequential direct read of the same file, in
// alternating slices of 200 ms, and what a stripe's checksum costs the thread that reads it. The
// file (2 GiB of random bytes) is made in $MOESAIC_BENCHMARK_DIR, or in the system's temporary
// folder, which should be on the disk in question.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "absl/time/clock.h"
#include "base/aligned_buffer.h"
#include "base/str_cat.h"
#include "base/unique_fd.h"
#include "memory/disk_reader.h"
#include "memory/pack_format.h"

namespace moesaic {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kFileBytes = 2048 * kMiB;
constexpr int64_t kSequentialBytes = 2 * kMiB;
constexpr absl::Duration kSlice = absl::Milliseconds(200);
constexpr int kPairs = 24;

// Random bytes in a file without a name.
class BenchmarkFile {
 public:
  static BenchmarkFile& Get() {
    static BenchmarkFile file;
    return file;
  }

  bool valid() const { return reader_.valid(); }
  int reader() const { return reader_.get(); }
  int sequential() const { return sequential_.get(); }

 private:
  BenchmarkFile() {
    const char* folder = std::getenv("MOESAIC_BENCHMARK_DIR");
    std::string path = (folder != nullptr ? std::filesystem::path(folder)
                                          : std::filesystem::temp_directory_path()) /
                       "moesaic-disk-XXXXXX";
    const UniqueFd writer(mkstemp(path.data()));
    if (!writer.valid()) return;
    std::mt19937_64 random(1);
    std::vector<uint64_t> block(kMiB / sizeof(uint64_t));
    for (int64_t offset = 0; offset < kFileBytes; offset += kMiB) {
      for (uint64_t& word : block) word = random();
      if (pwrite(writer.get(), block.data(), kMiB, offset) != kMiB) return;
    }
    fsync(writer.get());
    reader_ = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    sequential_ = UniqueFd(open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    unlink(path.c_str());
  }

  UniqueFd reader_;
  UniqueFd sequential_;
};

double BytesPerSecond(int64_t bytes, absl::Time start) {
  return static_cast<double>(bytes) / absl::ToDoubleSeconds(absl::Now() - start);
}

// One thread, one read at a time, from where the last slice ended, into as much memory in turn as
// the stripes take: the copy into memory that a cache holds is cheaper.
class SequentialReader {
 public:
  explicit SequentialReader(int64_t buffer_bytes)
      : buffer_(*AlignedBuffer::Allocate(
            std::max(buffer_bytes / kSequentialBytes, int64_t{1}) * kSequentialBytes,
            "benchmark")) {}

  double Slice() {
    const absl::Time start = absl::Now();
    int64_t bytes = 0;
    while (absl::Now() - start < kSlice) {
      bytes += pread(BenchmarkFile::Get().sequential(), buffer_.data() + offset_ % buffer_.size(),
                     kSequentialBytes, offset_);
      offset_ = (offset_ + kSequentialBytes) % kFileBytes;
    }
    return BytesPerSecond(bytes, start);
  }

 private:
  const AlignedBuffer buffer_;
  int64_t offset_ = 0;
};

// Stripes in random order, as demand loads come, or one after the other, `in_flight` at a time.
class StripeReader {
 public:
  StripeReader(std::unique_ptr<DiskReader> reader,
               int64_t stripe_bytes,
               int in_flight,
               bool in_order,
               bool verify)
      : reader_(std::move(reader)),
        stripe_bytes_(stripe_bytes),
        in_flight_(in_flight),
        in_order_(in_order),
        verify_(verify),
        buffer_(*AlignedBuffer::Allocate(in_flight * stripe_bytes, "benchmark")) {}

  double Slice() {
    const absl::Time start = absl::Now();
    int64_t bytes = 0;
    int started = 0;
    for (; started < in_flight_; ++started) Start(started);
    while (started > 0) {
      reader_->Wait(absl::InfiniteFuture(), done_);
      const bool more = absl::Now() - start < kSlice;
      for (const DiskReader::Completion& completion : done_) {
        const std::byte* slot = buffer_.data() + completion.token * stripe_bytes_;
        if (verify_) {
          benchmark::DoNotOptimize(StripeChecksum(0, {slot, static_cast<size_t>(stripe_bytes_)}));
        }
        bytes += completion.status.ok() ? stripe_bytes_ : 0;
        --started;
        if (more) {
          Start(static_cast<int>(completion.token));
          ++started;
        }
      }
      done_.clear();
    }
    return BytesPerSecond(bytes, start);
  }

 private:
  void Start(int slot) {
    const int64_t stripes = kFileBytes / stripe_bytes_;
    next_ = in_order_ ? (next_ + 1) % stripes : static_cast<int64_t>(random_() % stripes);
    reader_->Start(next_ * stripe_bytes_, buffer_.data() + slot * stripe_bytes_, stripe_bytes_,
                   static_cast<uint64_t>(slot));
  }

  const std::unique_ptr<DiskReader> reader_;
  const int64_t stripe_bytes_;
  const int in_flight_;
  const bool in_order_;
  const bool verify_;
  const AlignedBuffer buffer_;
  std::mt19937 random_{2};
  int64_t next_ = 0;
  std::vector<DiskReader::Completion> done_;
};

double Quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// Arguments: KiB of a stripe, parts in flight, KiB of a part, stripes in flight, threads instead of
// io_uring, in order, checksums.
void BM_Stripes(benchmark::State& state) {
  if (!BenchmarkFile::Get().valid()) {
    state.SkipWithError("the file could not be made");
    return;
  }
  DiskReader::Options options{
      .method = state.range(4) != 0 ? DiskReader::Method::kThreads : DiskReader::Method::kUring,
      .queue_depth = static_cast<int>(state.range(1)),
      .max_part_bytes = state.range(2) << 10};
  auto reader = DiskReader::Create(BenchmarkFile::Get().reader(), "benchmark", options);
  if (!reader.ok()) {
    state.SkipWithError(std::string(reader.status().message()).c_str());
    return;
  }
  state.SetLabel((*reader)->description());
  StripeReader stripes(*std::move(reader), state.range(0) << 10, static_cast<int>(state.range(3)),
                       state.range(5) != 0, state.range(6) != 0);
  SequentialReader sequential(state.range(3) * (state.range(0) << 10));
  std::vector<double> rates;
  std::vector<double> limits;
  std::vector<double> shares;
  for (auto _ : state) {
    const double before = sequential.Slice();
    rates.push_back(stripes.Slice());
    limits.push_back((before + sequential.Slice()) / 2);
    shares.push_back(rates.back() / limits.back());
  }
  state.counters["GB/s"] = Quantile(rates, 0.5) / 1e9;
  state.counters["sequential_GB/s"] = Quantile(limits, 0.5) / 1e9;
  state.counters["share"] = Quantile(shares, 0.5);
  state.counters["share_q1"] = Quantile(shares, 0.25);
  state.counters["share_q3"] = Quantile(shares, 0.75);
}
BENCHMARK(BM_Stripes)
    ->ArgNames({"stripe_KiB", "depth", "part_KiB", "in_flight", "threads", "in_order", "verify"})
    ->Args({1536, 32, 512, 16, 0, 0, 0})
    ->Args({1536, 32, 512, 16, 0, 1, 0})
    ->Args({1536, 8, 512, 16, 0, 0, 0})
    ->Args({1536, 8, 512, 4, 0, 0, 0})
    ->Args({1536, 8, 512, 4, 0, 1, 0})
    ->Args({1536, 4, 2048, 4, 0, 0, 0})
    ->Args({1536, 8, 256, 4, 0, 0, 0})
    ->Args({1536, 8, 512, 4, 0, 0, 1})
    ->Args({1536, 8, 512, 1, 0, 0, 0})
    ->Args({3072, 8, 512, 4, 0, 0, 0})
    ->Args({1536, 8, 512, 4, 1, 0, 0})
    ->Iterations(kPairs)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// Over more memory than a cache holds.
void BM_StripeChecksum(benchmark::State& state) {
  constexpr int64_t kBytes = 512 * kMiB;
  const int64_t stripe_bytes = state.range(0) << 10;
  const AlignedBuffer buffer = *AlignedBuffer::Allocate(kBytes, "benchmark");
  auto* words = buffer.as<uint64_t>();
  std::mt19937_64 random(3);
  for (int64_t i = 0; i < kBytes / 8; ++i) words[i] = random();
  int64_t stripe = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(StripeChecksum(
        stripe, {buffer.data() + stripe * stripe_bytes, static_cast<size_t>(stripe_bytes)}));
    stripe = (stripe + 1) % (kBytes / stripe_bytes);
  }
  state.SetBytesProcessed(state.iterations() * stripe_bytes);
}
BENCHMARK(BM_StripeChecksum)->ArgName("stripe_KiB")->Arg(1536)->Arg(3072);

}  // namespace
}  // namespace moesaic
