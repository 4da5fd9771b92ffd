#!/usr/bin/env python3
"""Decode and prefill of a 691M-parameter Mixture-of-Experts on this CPU: Moesaic against llama.cpp and transformers.

    scripts/bench.sh cpu_moe [--pairs 20] [--threads 2] [--cases prefill,1,4,16] [--peers BF16,Q8_0,transformers]

Speeds are ratios: short slices of limit probe, Moesaic, peer, limit probe follow each other, since a machine changes its
speed within minutes. A figure is the median over the pairs with its interquartile range. The limit of decode is the
bytes that a step really touched (by the server's counters) over the read bandwidth probed beside it; that of prefill,
the prompt's floating-point operations over the bfloat16 peak probed beside it.
"""

import argparse
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
import checkpoint
import moesaic
import peers
from figures import LimitProbe, ROOT, machine, save, summary

PREFILL_TOKENS = 512
CONTEXT_TOKENS = 32
# Steps of a slice of 100 to 300 ms.
DECODE_STEPS = {1: 32, 4: 16, 16: 8}
# A peer's streams begin anew before their context differs much from Moesaic's.
MAX_PEER_STEPS = 64


class Prompts:
    """Distinct random prompts for the peers; Moesaic's come from its load generator with seeds of the same series."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def draw(self, count: int, length: int) -> list[list[int]]:
        return [[self.random.randrange(2, checkpoint.SHAPE["vocab_size"]) for _ in range(length)] for _ in range(count)]


def run_prefill(server, peer, probe, prompts, pairs: int, seed: int) -> dict:
    flops = checkpoint.flops_per_token() * PREFILL_TOKENS + checkpoint.head_flops()
    ours, theirs, of_limit = [], [], []
    for pair in range(pairs + 1):
        before = probe.measure("compute", "bfloat16_gflops")
        seconds = server.prefill_seconds(PREFILL_TOKENS, seed + pair)
        peer_seconds = peer.ask(do="prefill", prompts=prompts.draw(1, PREFILL_TOKENS))["seconds"]
        after = probe.measure("compute", "bfloat16_gflops")
        if pair == 0:
            continue  # warms both
        ours.append(PREFILL_TOKENS / seconds)
        theirs.append(PREFILL_TOKENS / peer_seconds)
        of_limit.append(flops / seconds / ((before + after) / 2))
    return figures(ours, theirs, of_limit)


def run_decode(server, peer, probe, prompts, streams: int, pairs: int, seed: int) -> dict:
    steps = DECODE_STEPS[streams]
    ours, theirs, of_limit = [], [], []
    peer_steps = MAX_PEER_STEPS
    for pair in range(pairs + 1):
        if peer_steps + steps > MAX_PEER_STEPS:
            peer.ask(do="start", prompts=prompts.draw(streams, CONTEXT_TOKENS))
            peer_steps = 0
        before = probe.measure("read", "read_gb_per_s")
        tokens_per_s, step_bytes = server.decode(streams, CONTEXT_TOKENS, steps, seed + pair)
        peer_seconds = peer.ask(do="decode", steps=steps)["seconds"]
        peer_steps += steps
        after = probe.measure("read", "read_gb_per_s")
        if pair == 0:
            continue  # warms both
        ours.append(tokens_per_s)
        theirs.append(streams * steps / peer_seconds)
        of_limit.append(tokens_per_s / streams * step_bytes / ((before + after) / 2))
    return figures(ours, theirs, of_limit)


def figures(ours: list[float], theirs: list[float], of_limit: list[float]) -> dict:
    return {"moesaic_tokens_per_s": summary(ours), "peer_tokens_per_s": summary(theirs),
            "ratio": summary([a / b for a, b in zip(ours, theirs)]), "of_limit": summary(of_limit)}


def table(result: dict) -> str:
    lines = ["| Case | Peer | Moesaic, tokens/s | Peer, tokens/s | Moesaic ÷ peer | Moesaic ÷ limit |",
             "|---|---|---|---|---|---|"]
    for row in result["rows"]:
        ratio, limit = row["ratio"], row["of_limit"]
        lines.append(f"| {row['case']} | {row['peer']} | {row['moesaic_tokens_per_s']['median']:.0f} | "
                     f"{row['peer_tokens_per_s']['median']:.0f} | {ratio['median']:.2f} ({ratio['q1']:.2f}–{ratio['q3']:.2f}) | "
                     f"{100 * limit['median']:.0f} % ({100 * limit['q1']:.0f}–{100 * limit['q3']:.0f}) |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of slices per figure")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", default="prefill,1,4,16", help="prefill, or a number of decode streams")
    parser.add_argument("--peers", default="BF16,Q8_0,transformers")
    parser.add_argument("--cache", type=pathlib.Path, default=ROOT / ".cache" / "bench", help="where the model is kept")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "benchmarks" / "results" / "cpu_moe.json")
    options = parser.parse_args()

    print(f"seed {options.seed}, {options.threads} threads, {options.pairs} pairs a figure", flush=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    model = checkpoint.make(options.cache, options.seed)
    result = {"command": "scripts/bench.sh cpu_moe " + " ".join(sys.argv[1:]), **machine(), "seed": options.seed,
              "threads": options.threads, "routing": "the random model's own gate on random prompts", "rows": []}
    probe = LimitProbe(options.build, options.threads)
    server = moesaic.Server(options.build, model, options.threads,
                            ["--max-sequences", "16", "--max-model-len", "1024", "--kv-memory", "512MiB"])
    try:
        for name in options.peers.split(","):
            llama = name != "transformers"
            peer = peers.Worker("llama.cpp" if llama else name, checkpoint.to_gguf(model, name) if llama else model,
                                options.threads, max_streams=16, context=1024)
            for case in options.cases.split(","):
                prompts = Prompts(options.seed)
                if case == "prefill":
                    row = run_prefill(server, peer, probe, prompts, options.pairs, options.seed * 1000)
                else:
                    row = run_decode(server, peer, probe, prompts, int(case), options.pairs, options.seed * 1000)
                title = f"prefill {PREFILL_TOKENS}" if case == "prefill" else f"decode, {case} stream{'s' * (case != '1')}"
                result["rows"].append({"case": title, "peer": f"llama.cpp {name}" if llama else name, **row})
                save(result, options.output)
                print(table({"rows": result["rows"][-1:]}).splitlines()[-1], flush=True)
            peer.close()
    finally:
        server.close()
        probe.close()
    print("\n" + table(result))
    print(f"\nwritten to {options.output}")


if __name__ == "__main__":
    main()
