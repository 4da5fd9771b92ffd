#include "benchmarks/limit_probe.h"

#include <atomic>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/status_macros.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace moesaic {
namespace {

// Read between two looks at the clock.
constexpr int64_t kReadChunkBytes = int64_t{1} << 20;
constexpr int64_t kComputeLoops = 100'000;
// Sums that are added to in turn: more than latency times issue rate of any product instruction.
constexpr int kAccumulators = 16;

// The compiler must believe that `value` is used.
template <class T>
void Keep(const T& value) {
  asm volatile("" : : "m"(value) : "memory");
}

void ReadPortable(const std::byte* data, int64_t bytes) {
  uint64_t sum[8] = {};
  for (int64_t i = 0; i < bytes; i += 64) {
    for (int j = 0; j < 8; ++j) sum[j] += reinterpret_cast<const uint64_t*>(data + i)[j];
  }
  Keep(sum);
}

int64_t FmaPortable() {
  float sums[kAccumulators] = {};
  for (int64_t loop = 0; loop < kComputeLoops; ++loop) {
    for (float& sum : sums) sum = sum * 0.5f + 1.0f;
  }
  Keep(sums);
  return kComputeLoops * kAccumulators * 2;
}

#if defined(__x86_64__)
// Reads ask for lines a short distance ahead: a tenth more than the hardware reaches by itself.
constexpr int64_t kPrefetchBytes = 1024;

__attribute__((target("avx2"))) void ReadAvx2(const std::byte* data, int64_t bytes) {
  __m256i sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < bytes; i += 128) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + kPrefetchBytes), _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(data + i + kPrefetchBytes + 64), _MM_HINT_T1);
    for (int j = 0; j < 4; ++j) {
      const auto* p = reinterpret_cast<const __m256i*>(data + i) + j;
      sum = _mm256_xor_si256(sum, _mm256_load_si256(p));
    }
  }
  Keep(sum);
}

__attribute__((target("avx2,fma"))) int64_t FmaAvx2() {
  __m256 sums[kAccumulators - 4];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  const __m256 half = _mm256_set1_ps(0.5f);
  for (int64_t loop = 0; loop < kComputeLoops; ++loop) {
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(half, half, sum);
    asm volatile("");
  }
  for (const __m256& sum : sums) Keep(sum);
  return kComputeLoops * (kAccumulators - 4) * 8 * 2;
}

__attribute__((target("avx512f"))) void ReadAvx512(const std::byte* data, int64_t bytes) {
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < bytes; i += 128) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + kPrefetchBytes), _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(data + i + kPrefetchBytes + 64), _MM_HINT_T1);
    sum = _mm512_xor_si512(sum, _mm512_load_si512(data + i));
    sum = _mm512_xor_si512(sum, _mm512_load_si512(data + i + 64));
  }
  Keep(sum);
}

__attribute__((target("avx512f"))) int64_t FmaAvx512() {
  __m512 sums[kAccumulators];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  const __m512 half = _mm512_set1_ps(0.5f);
  for (int64_t loop = 0; loop < kComputeLoops; ++loop) {
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(half, half, sum);
    asm volatile("");
  }
  for (const __m512& sum : sums) Keep(sum);
  return kComputeLoops * kAccumulators * 16 * 2;
}

__attribute__((target("avx512f,avx512bf16"))) int64_t DotAvx512Bf16() {
  __m512 sums[kAccumulators];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  for (int64_t loop = 0; loop < kComputeLoops; ++loop) {
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, ones, ones);
    asm volatile("");
  }
  for (const __m512& sum : sums) Keep(sum);
  return kComputeLoops * kAccumulators * 32 * 2;
}
#endif

void Read(Isa isa, const std::byte* data, int64_t bytes) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return ReadAvx512(data, bytes);
  if (isa >= Isa::kAvx2) return ReadAvx2(data, bytes);
#endif
  static_cast<void>(isa);
  ReadPortable(data, bytes);
}

int64_t Compute(Isa isa, DType dtype) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512Bf16 && dtype == DType::kBFloat16) return DotAvx512Bf16();
  if (isa >= Isa::kAvx512) return FmaAvx512();
  if (isa >= Isa::kAvx2) return FmaAvx2();
#endif
  static_cast<void>(isa);
  static_cast<void>(dtype);
  return FmaPortable();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LimitProbe>> LimitProbe::Create(ThreadPool& pool,
                                                               Isa isa,
                                                               int64_t read_bytes) {
  MOESAIC_ASSIGN_OR_RETURN(AlignedBuffer buffer,
                           AlignedBuffer::Allocate(read_bytes, "the read probe"));
  const int64_t words = read_bytes / static_cast<int64_t>(sizeof(uint64_t));
  const int64_t share = words / pool.num_threads() + 1;
  pool.ParallelFor(pool.num_threads(), [&](int64_t part, int) {
    uint64_t state = static_cast<uint64_t>(part) + 1;
    for (int64_t i = part * share; i < words && i < (part + 1) * share; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      buffer.as<uint64_t>()[i] = state;
    }
  });
  return std::unique_ptr<LimitProbe>(new LimitProbe(pool, isa, std::move(buffer)));
}

template <class Work>
double LimitProbe::Rate(absl::Duration slice, Work work) {
  std::atomic<int64_t> total = 0;
  const absl::Time start = absl::Now();
  const absl::Time end = start + slice;
  pool_.ParallelFor(pool_.num_threads(), [&](int64_t part, int) {
    int64_t done = 0;
    while (absl::Now() < end) done += work(part, done);
    total += done;
  });
  return static_cast<double>(total.load()) / absl::ToDoubleSeconds(absl::Now() - start);
}

double LimitProbe::ReadBytesPerSecond(absl::Duration slice) {
  const int64_t chunks = static_cast<int64_t>(buffer_.size()) / kReadChunkBytes;
  const int64_t share = chunks / pool_.num_threads();
  return Rate(slice, [&](int64_t part, int64_t done) {
    const int64_t chunk = part * share + done / kReadChunkBytes % share;
    Read(isa_, buffer_.data() + chunk * kReadChunkBytes, kReadChunkBytes);
    return kReadChunkBytes;
  });
}

double LimitProbe::FlopsPerSecond(DType dtype, absl::Duration slice) {
  return Rate(slice, [&](int64_t, int64_t) { return Compute(isa_, dtype); });
}

}  // namespace moesaic
