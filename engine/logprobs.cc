#include "engine/logprobs.h"

#include <algorithm>

namespace moesaic {

void ComputeLogprobs(std::span<const float> logits,
                     int32_t top_n,
                     const kernels::KernelTable& kernels,
                     TokenOutput& output) {
  const int32_t vocab_size = static_cast<int32_t>(logits.size());
  const kernels::MaxResult max = kernels.arg_max(logits.data(), vocab_size);
  const float log_sum = kernels.log_sum_exp(logits.data(), vocab_size, max.value);

  const float chosen_logit = logits[output.token];
  int32_t rank = 1;
  for (int32_t token = 0; token < vocab_size; ++token) {
    rank += logits[token] > chosen_logit || (logits[token] == chosen_logit && token < output.token);
  }
  output.chosen = {.token = output.token, .logprob = chosen_logit - log_sum, .rank = rank};

  output.top.clear();
  const int32_t count = std::min(top_n, vocab_size);
  if (count == 0) return;
  // A heap whose front is the least probable kept; a later id never displaces an equal logit.
  // `logprob` holds the logit until the end.
  const auto before = [](const TokenLogprob& a, const TokenLogprob& b) {
    return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
  };
  for (int32_t token = 0; token < vocab_size; ++token) {
    if (static_cast<int32_t>(output.top.size()) == count) {
      if (!(logits[token] > output.top.front().logprob)) continue;
      std::pop_heap(output.top.begin(), output.top.end(), before);
      output.top.pop_back();
    }
    output.top.push_back({.token = token, .logprob = logits[token]});
    std::push_heap(output.top.begin(), output.top.end(), before);
  }
  std::sort_heap(output.top.begin(), output.top.end(), before);
  for (int32_t i = 0; i < count; ++i) {
    output.top[i].logprob -= log_sum;
    output.top[i].rank = i + 1;
  }
}

}  // namespace moesaic
