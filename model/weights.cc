#include "model/weights.h"

namespace moesaic {

int64_t ModelWeights::bytes() const {
  size_t buffers = embedding.size() + final_norm.size();
  int64_t linears = lm_head.bytes();
  for (const LayerWeights& layer : layers) {
    buffers += layer.input_norm.size() + layer.q_norm.size() + layer.k_norm.size() +
               layer.post_attention_norm.size();
    linears += layer.qkv.bytes() + layer.attention_output.bytes() + layer.gate.bytes() +
               layer.shared_expert_gate.bytes();
  }
  return static_cast<int64_t>(buffers) + linears + experts.bytes() + shared_experts.bytes() +
         dense_mlps.bytes();
}

}  // namespace moesaic
