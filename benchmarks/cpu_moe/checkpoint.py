"""The benchmark's model: a random Qwen3-MoE of 691 million parameters, as a Hugging Face folder and as GGUF files."""

import json
import pathlib

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

import gguf_file

SHAPE = dict(num_hidden_layers=8, hidden_size=1024, num_experts=64, moe_intermediate_size=384, num_experts_per_tok=8,
             num_attention_heads=16, num_key_value_heads=4, head_dim=64, vocab_size=32000, intermediate_size=384,
             norm_topk_prob=True, tie_word_embeddings=False, max_position_embeddings=4096, decoder_sparse_step=1,
             eos_token_id=1, bos_token_id=1, pad_token_id=0)
# Large enough that the gate's choices are well separated: routing then spreads over the experts as tokens differ.
WEIGHT_STD = 0.05


def flops_per_token() -> float:
    """Multiply-adds x 2 of one token's matrix products, without attention over the context and without the head."""
    s = SHAPE
    heads = (s["num_attention_heads"] * 2 + s["num_key_value_heads"] * 2) * s["head_dim"]
    per_layer = s["hidden_size"] * (heads + s["num_experts"])
    per_layer += s["num_experts_per_tok"] * 3 * s["hidden_size"] * s["moe_intermediate_size"]
    return 2.0 * per_layer * s["num_hidden_layers"]


def head_flops() -> float:
    """Multiply-adds x 2 of the output head for one token."""
    return 2.0 * SHAPE["hidden_size"] * SHAPE["vocab_size"]


def make(folder: pathlib.Path, seed: int) -> pathlib.Path:
    """Writes the bfloat16 Hugging Face folder once; returns it."""
    target = folder / f"qwen3-moe-691m-seed{seed}"
    if (target / "complete").exists():
        return target
    print(f"writing {target.name}", flush=True)
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(**SHAPE, dtype="bfloat16")
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen3MoeForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, WEIGHT_STD)
    model.save_pretrained(target)
    (target / "complete").touch()
    return target


def _bf16(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.int16).numpy().view(np.uint8)


def to_gguf(folder: pathlib.Path, kind: str) -> pathlib.Path:
    """Converts the folder to a GGUF file of the same weights in BF16 or Q8_0; norms and gate stay float32."""
    target = folder / f"{kind}.gguf"
    if target.exists():
        return target
    print(f"writing {target.name}", flush=True)
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    partial = target.with_suffix(".partial")
    writer = gguf_file.start(partial, config, config["rms_norm_eps"], config["rope_parameters"]["rope_theta"])
    quantized = {"BF16": gguf.GGMLQuantizationType.BF16, "Q8_0": gguf.GGMLQuantizationType.Q8_0}[kind]

    def add(name: str, tensor: torch.Tensor, keep_float32: bool = False) -> None:
        if keep_float32 or tensor.dim() == 1:
            writer.add_tensor(name, tensor.float().numpy())
        elif kind == "BF16":
            writer.add_tensor(name, _bf16(tensor), raw_dtype=quantized)
        else:
            writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), quantized), raw_dtype=quantized)

    add("token_embd.weight", tensors["model.embed_tokens.weight"])
    add("output_norm.weight", tensors["model.norm.weight"])
    add("output.weight", tensors["lm_head.weight"])
    for layer in range(config["num_hidden_layers"]):
        source, to = f"model.layers.{layer}.", f"blk.{layer}."
        add(to + "attn_norm.weight", tensors[source + "input_layernorm.weight"])
        add(to + "ffn_norm.weight", tensors[source + "post_attention_layernorm.weight"])
        for ours, theirs in (("attn_q", "q_proj"), ("attn_k", "k_proj"), ("attn_v", "v_proj"), ("attn_output", "o_proj"),
                             ("attn_q_norm", "q_norm"), ("attn_k_norm", "k_norm")):
            add(f"{to}{ours}.weight", tensors[f"{source}self_attn.{theirs}.weight"])
        add(to + "ffn_gate_inp.weight", tensors[source + "mlp.gate.weight"], keep_float32=True)
        for name in ("gate", "up", "down"):
            stacked = torch.stack([tensors[f"{source}mlp.experts.{expert}.{name}_proj.weight"]
                                   for expert in range(SHAPE["num_experts"])])
            add(f"{to}ffn_{name}_exps.weight", stacked)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(target)
    return target
