#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/checked_math.h"
#include "base/str_cat.h"
#include "engine/logits_processor.h"
#include "engine/philox.h"

namespace moesaic {
namespace {

// Below it sampling is greedy, as in vLLM: dividing by less overflows.
constexpr float kMinTemperature = 1e-5f;
constexpr size_t kChunk = 512;
constexpr size_t kFirstSortedRun = 64;

// Most probable first, equal ones by ascending id.
constexpr auto kMoreProbable = [](const auto& a, const auto& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.token < b.token;
};

// Eight independent sums: a single one would wait for each addition.
double Sum(std::span<const float> values) {
  std::array<double, 8> sums{};
  size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += values[i + lane];
  }
  for (; i < values.size(); ++i) sums[0] += values[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace

Sampler::Sampler(const kernels::KernelTable& kernels,
                 int32_t vocab_size,
                 std::vector<int32_t> eos_token_ids)
    : kernels_(kernels),
      eos_token_ids_(std::move(eos_token_ids)),
      processed_(vocab_size),
      probabilities_(vocab_size),
      chunk_sums_(CeilDiv(static_cast<size_t>(vocab_size), kChunk)) {
  candidates_.reserve(vocab_size);
}

absl::StatusOr<int32_t> Sampler::Sample(std::span<const float> logits, const Context& context) {
  const SamplingParams& params = context.params;
  if (NeedsLogitsProcessors(params, context.output_tokens)) {
    std::copy(logits.begin(), logits.end(), processed_.begin());
    ApplyLogitsProcessors(params, eos_token_ids_, context.output_tokens, context.token_uses,
                          processed_);
    logits = processed_;
  }
  const int64_t size = static_cast<int64_t>(logits.size());
  const kernels::MaxResult max = kernels_.arg_max(logits.data(), size);
  if (!std::isfinite(max.value)) {
    return absl::InternalError(StrCat("no token can be sampled: the largest logit is ", max.value));
  }
  if (params.temperature < kMinTemperature) return max.index;

  const float total = kernels_.exp_scaled(logits.data(), size, max.value, 1.0f / params.temperature,
                                          probabilities_.data());
  if (!std::isfinite(total)) {
    return absl::InternalError("no token can be sampled: a logit is not a number");
  }
  const double uniform = UniformDraw(context.seed, static_cast<uint64_t>(context.output_tokens));
  if (params.top_k == 0 && params.top_p == 1.0f && params.min_p == 0.0f) {
    return DrawFromAll(uniform);
  }
  const double left = CollectCandidates(params, total);
  if (params.top_p < 1.0f) KeepTopP(left * params.top_p);
  return DrawFromCandidates(uniform);
}

int32_t Sampler::DrawFromAll(double uniform) {
  const std::span<const float> all(probabilities_);
  double total = 0;
  for (size_t chunk = 0; chunk < chunk_sums_.size(); ++chunk) {
    const size_t begin = chunk * kChunk;
    chunk_sums_[chunk] = Sum(all.subspan(begin, std::min(kChunk, all.size() - begin)));
    total += chunk_sums_[chunk];
  }
  double left = uniform * total;
  size_t chunk = 0;
  while (chunk + 1 < chunk_sums_.size() && left >= chunk_sums_[chunk]) {
    left -= chunk_sums_[chunk++];
  }
  // Rounding may leave a little at the end: the last possible token takes it.
  int32_t last = 0;
  for (size_t i = chunk * kChunk; i < all.size(); ++i) {
    if (all[i] == 0) continue;
    last = static_cast<int32_t>(i);
    if (left < all[i]) break;
    left -= all[i];
  }
  return last;
}

double Sampler::CollectCandidates(const SamplingParams& params, double total) {
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < probabilities_.size()) {
    return CollectTopK(static_cast<size_t>(params.top_k), params.min_p);
  }
  if (params.min_p > 0.0f) return CollectAbove(params.min_p);
  // The tokens above any floor head the ranking, so they do once they weigh enough for top-p.
  for (double floor = total * 0x1p-8; floor > total * 0x1p-24; floor *= 0x1p-5) {
    if (CollectAbove(static_cast<float>(floor)) >= total * params.top_p) return total;
  }
  CollectAbove(0.0f);
  return total;
}

double Sampler::CollectAbove(float floor) {
  candidates_.clear();
  for (size_t token = 0; token < probabilities_.size(); ++token) {
    if (probabilities_[token] >= floor) {
      candidates_.push_back({probabilities_[token], static_cast<int32_t>(token)});
    }
  }
  return SumOfCandidates();
}

double Sampler::CollectTopK(size_t top_k, float floor) {
  candidates_.clear();
  const auto keep_top_k = [&] {
    if (candidates_.size() <= top_k) return;
    const auto last = candidates_.begin() + static_cast<ptrdiff_t>(top_k) - 1;
    std::nth_element(candidates_.begin(), last, candidates_.end(), kMoreProbable);
    candidates_.resize(top_k);
  };
  // At most 2k at a time: when full, the lower half goes and the k-th becomes the bar. A later
  // token must be above it, since equal ones rank by id.
  const size_t full = std::min(probabilities_.size(), std::max(2 * top_k, kFirstSortedRun));
  float bar = -1.0f;
  for (size_t token = 0; token < probabilities_.size(); ++token) {
    const float probability = probabilities_[token];
    if (probability < floor || probability <= bar) continue;
    candidates_.push_back({probability, static_cast<int32_t>(token)});
    if (candidates_.size() == full) {
      keep_top_k();
      bar = candidates_.back().probability;
    }
  }
  keep_top_k();
  return SumOfCandidates();
}

double Sampler::SumOfCandidates() const {
  double sum = 0;
  for (const Candidate& candidate : candidates_) sum += candidate.probability;
  return sum;
}

void Sampler::KeepTopP(double wanted) {
  double sum = 0;
  size_t kept = 0;
  // Most distributions reach top-p within a few tokens, so sort only as far as needed.
  for (size_t sorted = 0, run = kFirstSortedRun; sorted < candidates_.size() && sum < wanted;
       run *= 4) {
    const size_t end = std::min(candidates_.size(), sorted + run);
    const auto first = candidates_.begin() + static_cast<ptrdiff_t>(sorted);
    const auto middle = candidates_.begin() + static_cast<ptrdiff_t>(end);
    std::nth_element(first, middle, candidates_.end(), kMoreProbable);
    std::sort(first, middle, kMoreProbable);
    for (; kept < end && sum < wanted; ++kept) sum += candidates_[kept].probability;
    sorted = end;
  }
  candidates_.resize(std::max<size_t>(kept, 1));
}

int32_t Sampler::DrawFromCandidates(double uniform) const {
  double left = uniform * SumOfCandidates();
  int32_t last = candidates_.front().token;
  for (const Candidate& candidate : candidates_) {
    if (candidate.probability == 0) continue;
    last = candidate.token;
    if (left < candidate.probability) break;
    left -= candidate.probability;
  }
  return last;
}

bool Sampler::IsStopToken(const SamplingParams& params, int32_t token) const {
  const auto contains = [token](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  return contains(params.stop_token_ids) || (!params.ignore_eos && contains(eos_token_ids_));
}

}  // namespace moesaic
