"""The benchmark's model: Qwen3-30B-A3B cut to 8 layers and a small vocabulary, 9 GiB of experts.

For Moesaic only its config.json (weights are --load-format dummy), for llama.cpp a GGUF file of the same shape.
"""

import json
import pathlib

import gguf
import numpy as np

import gguf_file

SHAPE = dict(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", dtype="bfloat16", num_hidden_layers=8,
             hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
             num_attention_heads=32, num_key_value_heads=4, head_dim=128, vocab_size=8192, norm_topk_prob=True,
             hidden_act="silu", rms_norm_eps=1e-6, rope_theta=1e6, max_position_embeddings=4096, tie_word_embeddings=False,
             decoder_sparse_step=1, mlp_only_layers=[], attention_bias=False, eos_token_id=1, bos_token_id=1, pad_token_id=0)
EXPERT_BYTES = 2 * 3 * SHAPE["hidden_size"] * SHAPE["moe_intermediate_size"]
ALL_EXPERTS_BYTES = EXPERT_BYTES * SHAPE["num_experts"] * SHAPE["num_hidden_layers"]


def make(folder: pathlib.Path) -> pathlib.Path:
    target = folder / "qwen3-30b-a3b-8-layers"
    target.mkdir(parents=True, exist_ok=True)
    config, text = target / "config.json", json.dumps(SHAPE, indent=2) + "\n"
    # The pack's fingerprint takes in the file's time.
    if not config.exists() or config.read_text(encoding="utf-8") != text:
        config.write_text(text, encoding="utf-8")
    return target


def _random_bf16(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Either sign, magnitudes 1/32 to 1/16: quick to draw, and the gates' choices spread over the experts."""
    bits = np.frombuffer(random.bytes(2 * int(np.prod(shape))), np.uint16) & np.uint16(0x807F) | np.uint16(0x3D00)
    return bits.reshape(shape)


def to_gguf(folder: pathlib.Path, seed: int) -> pathlib.Path:
    """A GGUF file of random bfloat16 weights, written tensor by tensor; norms and gates are float32."""
    target = folder / f"seed{seed}.gguf"
    if target.exists():
        return target
    print(f"writing {target.name}", flush=True)
    s = SHAPE
    hidden, wide, heads = s["hidden_size"], s["moe_intermediate_size"], s["head_dim"]
    queries, keys = s["num_attention_heads"] * heads, s["num_key_value_heads"] * heads
    tensors = [("token_embd", (s["vocab_size"], hidden)), ("output_norm", (hidden,)), ("output", (s["vocab_size"], hidden))]
    for layer in range(s["num_hidden_layers"]):
        tensors += [(f"blk.{layer}.{name}", shape) for name, shape in (
            ("attn_norm", (hidden,)), ("ffn_norm", (hidden,)), ("attn_q_norm", (heads,)), ("attn_k_norm", (heads,)),
            ("attn_q", (queries, hidden)), ("attn_k", (keys, hidden)), ("attn_v", (keys, hidden)),
            ("attn_output", (hidden, queries)), ("ffn_gate_inp", (s["num_experts"], hidden)),
            ("ffn_gate_exps", (s["num_experts"], wide, hidden)), ("ffn_up_exps", (s["num_experts"], wide, hidden)),
            ("ffn_down_exps", (s["num_experts"], hidden, wide)))]
    partial = target.with_suffix(".partial")
    writer = gguf_file.start(partial, s, s["rms_norm_eps"], s["rope_theta"])

    def is_bf16(name: str, shape: tuple[int, ...]) -> bool:
        return len(shape) > 1 and not name.endswith("ffn_gate_inp")

    for name, shape in tensors:
        count = int(np.prod(shape))
        if is_bf16(name, shape):
            writer.add_tensor_info(f"{name}.weight", shape, np.dtype(np.uint16), 2 * count,
                                   raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor_info(f"{name}.weight", shape, np.dtype(np.float32), 4 * count)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(seed)
    for name, shape in tensors:
        if is_bf16(name, shape):
            writer.write_tensor_data(_random_bf16(random, shape))
        elif len(shape) > 1:
            writer.write_tensor_data(random.standard_normal(shape, np.float32) * np.float32(0.05))
        else:
            writer.write_tensor_data(np.ones(shape, np.float32))
    writer.close()
    partial.rename(target)
    return target
