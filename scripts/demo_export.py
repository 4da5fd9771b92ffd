"""Export and measurement of the demo model that train_demo.py trains."""

import json
import math

import torch
from safetensors.torch import load_file, save_file

SAMPLE_PROMPTS = (
    "violin (noun):",
    "dog (noun):",
    "river (noun):",
    "physicist (noun):",
    "Paris (noun):",
    "happiness (noun):",
    "run (verb):",
    "melt (verb):",
    "blue (adjective):",
    "quickly (adverb):",
    "bread",
    "moonfish soup (noun):",
)


def config_json(shape, end_id):
    """The Qwen3MoeForCausalLM configuration; rope_theta in both its spellings."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": 4 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.positions,
        "initializer_range": 0.02,
        "rms_norm_eps": shape.eps,
        "use_cache": True,
        "tie_word_embeddings": True,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": shape.expert_hidden,
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "norm_topk_prob": True,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "bos_token_id": None,
        "eos_token_id": end_id,
        "pad_token_id": end_id + 1,
    }


def hub_tensors(shape, weights):
    """Renames and splits the training weights into the published layout."""
    tensors = {"model.embed_tokens.weight": weights["embed"], "model.norm.weight": weights["norm"]}
    sizes = [shape.heads * shape.head_dim] + 2 * [shape.kv_heads * shape.head_dim]
    for i in range(shape.layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        tensors[theirs + "input_layernorm.weight"] = weights[ours + "attention_norm"]
        tensors[theirs + "post_attention_layernorm.weight"] = weights[ours + "experts_norm"]
        attention = theirs + "self_attn."
        for name, part in zip("qkv", weights[ours + "attention.qkv"].split(sizes)):
            tensors[f"{attention}{name}_proj.weight"] = part
        tensors[attention + "o_proj.weight"] = weights[ours + "attention.out"]
        tensors[attention + "q_norm.weight"] = weights[ours + "attention.q_norm"]
        tensors[attention + "k_norm.weight"] = weights[ours + "attention.k_norm"]
        tensors[theirs + "mlp.gate.weight"] = weights[ours + "experts.router"]
        for e in range(shape.experts):
            expert = f"{theirs}mlp.experts.{e}."
            gate, up = weights[ours + "experts.gate_up"][e].chunk(2)
            tensors[expert + "gate_proj.weight"] = gate
            tensors[expert + "up_proj.weight"] = up
            tensors[expert + "down_proj.weight"] = weights[ours + "experts.down"][e]
    return {name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in tensors.items()}


def load_weights(folder, shape):
    """Reads an exported folder back into the names and layout of the training."""
    tensors = {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}
    weights = {"embed": tensors["model.embed_tokens.weight"], "norm": tensors["model.norm.weight"]}
    for i in range(shape.layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        weights[ours + "attention_norm"] = tensors[theirs + "input_layernorm.weight"]
        weights[ours + "experts_norm"] = tensors[theirs + "post_attention_layernorm.weight"]
        attention = theirs + "self_attn."
        qkv = [tensors[f"{attention}{name}_proj.weight"] for name in "qkv"]
        weights[ours + "attention.qkv"] = torch.cat(qkv)
        weights[ours + "attention.out"] = tensors[attention + "o_proj.weight"]
        weights[ours + "attention.q_norm"] = tensors[attention + "q_norm.weight"]
        weights[ours + "attention.k_norm"] = tensors[attention + "k_norm.weight"]
        weights[ours + "experts.router"] = tensors[theirs + "mlp.gate.weight"]
        experts = [f"{theirs}mlp.experts.{e}." for e in range(shape.experts)]
        weights[ours + "experts.gate_up"] = torch.stack(
            [torch.cat([tensors[e + f"{n}_proj.weight"] for n in ("gate", "up")]) for e in experts]
        )
        weights[ours + "experts.down"] = torch.stack(
            [tensors[e + "down_proj.weight"] for e in experts]
        )
    return weights


def export_folder(folder, shape, weights, tokenizer, end, pad):
    """Writes the Hugging Face folder: configuration, weights and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    end_id = tokenizer.token_to_id(end)
    generation = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.9,
        "max_new_tokens": 96,
        "eos_token_id": end_id,
        "pad_token_id": end_id + 1,
    }
    tokenizer_config = {
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": end,
        "model_max_length": shape.positions,
        "pad_token": pad,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    for name, content in (
        ("config.json", config_json(shape, end_id)),
        ("generation_config.json", generation),
        ("tokenizer_config.json", tokenizer_config),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(hub_tensors(shape, weights), folder / "model.safetensors", metadata={"format": "pt"})


def held_out_loss(model, documents, heads, pad, batch=64):
    """Returns the loss per token of the glosses, and each layer's expert shares.

    Every document stands alone in its row; the head (word and part of speech) is
    given, and the tokens after it, the end token included, are scored.
    """
    config = model.config
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    total, count = 0.0, 0
    uses = torch.zeros(config.num_hidden_layers, config.num_experts)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        width = max(len(documents[i]) for i in part)
        ids = torch.full((len(part), width), pad)
        scored = torch.zeros(len(part), width, dtype=torch.bool)
        for row, i in enumerate(part):
            ids[row, : len(documents[i])] = torch.tensor(documents[i])
            scored[row, heads[i] : len(documents[i])] = True
        real = ids != pad
        out = model(input_ids=ids, attention_mask=real.long(), output_router_logits=True)
        losses = torch.nn.functional.cross_entropy(
            out.logits[:, :-1].transpose(1, 2).float(), ids[:, 1:], reduction="none"
        )
        total += losses[scored[:, 1:]].sum().item()
        count += int(scored[:, 1:].sum())
        for layer, logits in enumerate(out.router_logits):
            chosen = logits.topk(config.num_experts_per_tok, -1).indices[real.flatten()]
            uses[layer] += torch.bincount(chosen.flatten(), minlength=config.num_experts)
    return total / count, count, uses / uses.sum(-1, keepdim=True)


def transcript(model, tokenizer):
    """Greedy answers to the sample prompts."""
    lines = []
    for prompt in SAMPLE_PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        out = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            temperature=None,
            top_k=None,
            top_p=None,
        )
        lines.append(tokenizer.decode(out[0], skip_special_tokens=True))
    return "\n".join(lines) + "\n"


@torch.no_grad()
def measure_folder(folder, documents, heads, pad):
    """Loads the folder with transformers; returns the figures and the transcript."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    loss, count, shares = held_out_loss(model, documents, heads, pad)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum(-1) / math.log(shares.shape[1])
    figures = {
        "held_out_glosses": len(documents),
        "held_out_gloss_tokens": count,
        "held_out_loss": round(loss, 4),
        "expert_shares": [[round(x, 4) for x in row] for row in shares.tolist()],
        "expert_entropy": [round(x, 4) for x in entropy.tolist()],
    }
    return figures, transcript(model, tokenizer)
