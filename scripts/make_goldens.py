#!/usr/bin/env python3
"""Writes tests/goldens: tiny random checkpoints and what transformers answers for them.

    .deps/venv/bin/python scripts/make_goldens.py [CASE...]

Run again after a change of scripts/reference_models.py or of the cases here, and commit the result. Each golden.json
records the seed and the versions that made it.
"""

import json
import pathlib
import random
import shutil
import sys

import safetensors
import torch
import transformers

import reference_models
from reference_models import Case

FOLDER = pathlib.Path(__file__).resolve().parent.parent / 'tests' / 'goldens'

YARN = {'rope_type': 'yarn', 'rope_theta': 10000.0, 'factor': 4.0, 'original_max_position_embeddings': 64}
LLAMA3 = {'rope_type': 'llama3', 'rope_theta': 500000.0, 'factor': 8.0, 'low_freq_factor': 1.0,
          'high_freq_factor': 4.0, 'original_max_position_embeddings': 64}

CASES = [
    Case('qwen3_plain', 'qwen3_moe', {'norm_topk_prob': True}),
    Case('qwen3_tied_fused', 'qwen3_moe', {'tie_word_embeddings': True, 'num_key_value_heads': 1}, fused=True),
    Case('qwen3_dense_biased', 'qwen3_moe',
         {'attention_bias': True, 'num_hidden_layers': 3, 'mlp_only_layers': [1], 'rope_parameters': YARN,
          'norm_topk_prob': True}),
    Case('qwen3_sliding', 'qwen3_moe', {'use_sliding_window': True, 'sliding_window': 24, 'num_experts': 6,
                                        'num_experts_per_tok': 3}, old_spelling=True),
    Case('qwen2_shared', 'qwen2_moe', {}),
    Case('qwen2_sliding_sharded', 'qwen2_moe',
         {'use_sliding_window': True, 'sliding_window': 20, 'norm_topk_prob': True, 'num_hidden_layers': 3,
          'decoder_sparse_step': 2, 'tie_word_embeddings': True}, sharded=True),
    Case('mixtral_plain', 'mixtral', {}),
    Case('mixtral_fused_sliding', 'mixtral',
         {'sliding_window': 17, 'num_key_value_heads': 4, 'rope_parameters': LLAMA3}, fused=True, sharded=True),
    Case('mixtral_old', 'mixtral', {'tie_word_embeddings': True, 'hidden_act': 'gelu_pytorch_tanh'},
         old_spelling=True),
    Case('olmoe_plain', 'olmoe', {'num_key_value_heads': 4}),
    Case('olmoe_clipped', 'olmoe', {'clip_qkv': 0.9, 'norm_topk_prob': True, 'num_experts_per_tok': 4}, fused=True,
         old_spelling=True),
]


def make(case, seed):
    folder = FOLDER / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = reference_models.build(case, seed)
    reference_models.save(model, case, folder)
    lengths = [1, 2, 3, 5, 8, 13, 15, 16, 17, 21, 27, 31, 32, 33, 34, 40]
    random.Random(seed).shuffle(lengths)
    prompts = reference_models.random_prompts(model.config.vocab_size, lengths, seed)
    # Read back, so that the golden answers are those of the files.
    model = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    golden = {
        'case': case.name,
        'seed': seed,
        'transformers': transformers.__version__,
        'torch': torch.__version__.split('+')[0],
        'safetensors': safetensors.__version__,
        'sequences': reference_models.reference(model, prompts),
    }
    text = json.dumps(golden, separators=(',', ':')).replace('{"prompt"', '\n{"prompt"')
    (folder / 'golden.json').write_text(text + '\n')
    near = sum(min(s['gate_margin'] + s['top2_margin'][len(s['prompt']) - 1:]) < 1e-5 for s in golden['sequences'])
    size = sum(path.stat().st_size for path in folder.iterdir())
    gap = max(max(s['gap']) for s in golden['sequences'])
    print(f'{case.name}: seed {seed}, {size / 1024:.0f} KiB, largest gap of the oracle {gap:.2g}, '
          f'{near} of {len(prompts)} sequences with a near-tie', flush=True)


def main():
    wanted = sys.argv[1:]
    torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other
    for number, case in enumerate(CASES):
        if not wanted or case.name in wanted:
            make(case, seed=1000 + number)


if __name__ == '__main__':
    main()
