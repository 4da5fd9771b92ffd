"""Tiny random MoE checkpoints and what Hugging Face transformers says of them.

Shared by make_goldens.py (committed golden files) and oracle.py (live comparison). Weights are drawn with a standard
deviation well above the default initialisation, so that routing and tokens are separated and an error shows.
"""

import dataclasses
import json
import pathlib

import torch
import transformers

GENERATED_TOKENS = 64
TOP = 4  # log-probabilities kept beside the chosen token's

FAMILIES = {
    'qwen3_moe': (transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM),
    'qwen2_moe': (transformers.Qwen2MoeConfig, transformers.Qwen2MoeForCausalLM),
    'mixtral': (transformers.MixtralConfig, transformers.MixtralForCausalLM),
    'olmoe': (transformers.OlmoeConfig, transformers.OlmoeForCausalLM),
}

# Sizes shared by the tiny models; a case overrides what it is about.
TINY = {
    'vocab_size': 128,
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'max_position_embeddings': 512,
    'num_experts_per_tok': 2,
    'bos_token_id': None,
    'eos_token_id': None,
    'pad_token_id': None,
}
TINY_EXPERTS = {
    'qwen3_moe': {'num_experts': 8, 'moe_intermediate_size': 24, 'head_dim': 16, 'intermediate_size': 40},
    'qwen2_moe': {'num_experts': 8, 'moe_intermediate_size': 24, 'shared_expert_intermediate_size': 40,
                  'intermediate_size': 40},
    'mixtral': {'num_local_experts': 8, 'intermediate_size': 24},
    'olmoe': {'num_experts': 8, 'intermediate_size': 24},
}


@dataclasses.dataclass
class Case:
    """One checkpoint: a family, what its config overrides, and how it is written to disk."""

    name: str
    family: str
    config: dict = dataclasses.field(default_factory=dict)
    fused: bool = False  # all experts of a layer in two tensors
    sharded: bool = False
    old_spelling: bool = False  # config.json as transformers 4 wrote it
    std: float = 0.2


def build(case, seed, dtype=torch.float32):
    """A model of the case's shape with weights drawn from `seed`, in evaluation mode."""
    config_class, model_class = FAMILIES[case.family]
    config = config_class(**{**TINY, **TINY_EXPERTS[case.family], **case.config})
    model = model_class(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.dim() == 1 and not name.endswith('bias')
            parameter.copy_(1 + 0.1 * noise if is_norm else case.std * noise)
    return model.to(dtype).eval()


def save(model, case, folder):
    """Writes the checkpoint in the case's layout and spelling."""
    folder = pathlib.Path(folder)
    options = {'max_shard_size': '60KB'} if case.sharded else {}
    model.save_pretrained(folder, save_original_format=not case.fused, **options)
    if case.old_spelling:
        spell_as_transformers_4(folder / 'config.json')


def spell_as_transformers_4(path):
    config = json.loads(path.read_text())
    rope = config.pop('rope_parameters')
    config['rope_theta'] = rope.pop('rope_theta')
    if rope.get('rope_type', 'default') != 'default':
        config['rope_scaling'] = rope
    config['torch_dtype'] = config.pop('dtype')
    path.write_text(json.dumps(config, indent=2))


def random_prompts(vocab_size, lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(vocab_size, (length,), generator=generator).tolist() for length in lengths]


def padded(sequences):
    """One batch, padded on the right: what follows a token changes nothing before it."""
    length = max(map(len, sequences))
    return torch.tensor([sequence + [0] * (length - len(sequence)) for sequence in sequences])


@torch.no_grad()
def greedy(model, prompts, count):
    """`count` greedy tokens for each prompt, never stopping early."""
    model.set_experts_implementation('eager')
    sequences = [list(prompt) for prompt in prompts]
    for _ in range(count):
        logits = model(padded(sequences), use_cache=False).logits
        for row, sequence in zip(logits, sequences):
            sequence.append(int(row[len(sequence) - 1].argmax()))
    return [sequence[len(prompt):] for prompt, sequence in zip(prompts, sequences)]


class GateMargins:
    """Smallest gap, over the layers, between the logits of the last chosen and the first unchosen expert."""

    def __init__(self, model):
        self._top_k = model.config.num_experts_per_tok
        self._margins = None
        self._hooks = [module.register_forward_hook(self._see) for module in model.modules()
                       if type(module).__name__.endswith('TopKRouter')]

    def _see(self, module, inputs, outputs):
        logits = outputs[0].float()
        if logits.shape[-1] > self._top_k:
            top = logits.topk(self._top_k + 1, dim=-1).values
            margins = top[:, -2] - top[:, -1]
            self._margins = margins if self._margins is None else torch.minimum(self._margins, margins)

    def take(self, positions):
        margins = torch.full((positions,), float('inf')) if self._margins is None else self._margins
        self._margins = None
        return margins

    def remove(self):
        for hook in self._hooks:
            hook.remove()


@torch.no_grad()
def log_probs_one_by_one(model, sequences):
    """Log-probabilities [positions, vocab] and gate margins [positions] of each sequence, experts run one by one."""
    model.set_experts_implementation('eager')
    gate = GateMargins(model)
    result = []
    for sequence in sequences:
        logits = model(torch.tensor([sequence]), use_cache=False).logits[0].float()
        result.append((logits.log_softmax(-1), gate.take(len(sequence))))
    gate.remove()
    return result


@torch.no_grad()
def log_probs_batched(model, sequences):
    """The same log-probabilities by the grouped experts path, all sequences in one batch."""
    # torch's grouped matrix product takes rows of whole 16 bytes only.
    units = getattr(model.config, 'moe_intermediate_size', model.config.intermediate_size)
    model.set_experts_implementation('grouped_mm' if units % 4 == 0 else 'batched_mm')
    logits = model(padded(sequences), use_cache=False).logits.float()
    return [row[:len(sequence)].log_softmax(-1) for row, sequence in zip(logits, sequences)]


def reference(model, prompts, count=GENERATED_TOKENS):
    """What a served model must answer to each prompt.

    For position p of prompt and generated tokens together: logprobs[p] is that of token p + 1, gap[p] how far the
    oracle's own two paths disagree there, gate_margin[p] and top2_margin[p] how near a different choice was.
    top[i] belongs to generated token i.
    """
    generated = greedy(model, prompts, count)
    sequences = [prompt + tokens for prompt, tokens in zip(prompts, generated)]
    exact = log_probs_one_by_one(model, sequences)
    grouped = log_probs_batched(model, sequences)
    answers = []
    for prompt, tokens, sequence, (log_probs, margins), other in zip(prompts, generated, sequences, exact, grouped):
        following = torch.tensor(sequence[1:])[:, None]
        top_values, top_ids = log_probs[:-1].topk(TOP, dim=-1)
        shown = torch.cat([following, top_ids], dim=-1)
        gap = (log_probs[:-1].gather(-1, shown) - other[:-1].gather(-1, shown)).abs().amax(-1)
        first = len(prompt) - 1
        answers.append({
            'prompt': prompt,
            'tokens': tokens,
            'logprobs': rounded(log_probs[:-1].gather(-1, following)[:, 0]),
            'gap': significant(gap),
            'gate_margin': significant(margins[:-1]),
            'top2_margin': significant(top_values[:, 0] - top_values[:, 1]),
            'top': [[[int(token), round(float(value), 6)] for token, value in zip(ids, values)]
                    for ids, values in zip(top_ids[first:], top_values[first:])],
        })
    return answers


def rounded(values):
    return [round(float(value), 6) for value in values]


def significant(values):
    return [float(f'{float(value):.3g}') if value != float('inf') else 1e9 for value in values]
