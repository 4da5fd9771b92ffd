#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/sampling_params.h"
#include "engine/sequence.h"
#include "model/model.h"

namespace moesaic {

// Chooses a token from a row of logits: penalties and masks, temperature, then min-p, top-k and
// top-p in vLLM's order, then one draw. A draw is a pure function of the sequence's seed and output
// position, so a request's tokens do not depend on its neighbours or on preemption.
//
// Owner and thread: engine. Buffers are sized once for the vocabulary.
class Sampler {
 public:
  Sampler(const kernels::KernelTable& kernels,
          int32_t vocab_size,
          std::vector<int32_t> eos_token_ids);

  struct Context {
    const SamplingParams& params;
    uint64_t seed = 0;
    int32_t output_tokens = 0;  // sampled so far
    const TokenUseMap& token_uses;
  };

  // Internal when the logits leave nothing to choose from (not finite, or all masked).
  absl::StatusOr<int32_t> Sample(std::span<const float> logits, const Context& context);

  // Whether `token` ends a sequence of these parameters.
  bool IsStopToken(const SamplingParams& params, int32_t token) const;

 private:
  struct Candidate {
    float probability = 0.0f;  // relative to the most probable token's
    int32_t token = 0;
  };

  int32_t DrawFromAll(double uniform);
  // Fills candidates_ with what min-p and top-k leave of probabilities_ (sum `total`), but for
  // tokens that top-p is sure to drop. Returns the sum of what min-p and top-k leave.
  double CollectCandidates(const SamplingParams& params, double total);
  double CollectAbove(float floor);
  double CollectTopK(size_t top_k, float floor);
  double SumOfCandidates() const;
  // Keeps the most probable candidates that together weigh `wanted`.
  void KeepTopP(double wanted);
  int32_t DrawFromCandidates(double uniform) const;

  const kernels::KernelTable& kernels_;
  const std::vector<int32_t> eos_token_ids_;
  std::vector<float> processed_;
  std::vector<float> probabilities_;
  std::vector<double> chunk_sums_;
  std::vector<Candidate> candidates_;
};

}  // namespace moesaic
