"""Starts a GGUF file of a Qwen3-MoE shape: everything but the tensors."""

import pathlib

import gguf


def start(path: pathlib.Path, shape: dict, rms_norm_eps: float, rope_theta: float) -> gguf.GGUFWriter:
    """`shape` has the names of config.json. The tensors follow, then the caller writes and closes the file."""
    writer = gguf.GGUFWriter(str(path), "qwen3moe")
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_expert_feed_forward_length(shape["moe_intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_key_length(shape["head_dim"])
    writer.add_value_length(shape["head_dim"])
    writer.add_layer_norm_rms_eps(rms_norm_eps)
    writer.add_rope_freq_base(rope_theta)
    writer.add_expert_count(shape["num_experts"])
    writer.add_expert_used_count(shape["num_experts_per_tok"])
    # llama.cpp wants a vocabulary; prompts are token ids, so any will do.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}" for i in range(shape["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * shape["vocab_size"])
    writer.add_token_merges(["t 0"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    return writer
