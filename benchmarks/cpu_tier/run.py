#!/usr/bin/env python3
"""Decode with 9 GiB of experts in less memory: Moesaic's expert memory against llama.cpp's mmap on this CPU and disk.

    scripts/bench.sh cpu_tier [--quick] [--pairs 20] [--residency 12.5,25,50,100] [--cache FOLDER-ON-THE-DISK-TO-MEASURE]

Both sides run in a control group that holds the expert memory and 1 GiB for all else (dense weights 0.4 GiB, KV cache,
program). Moesaic's routing is replayed from benchmarks/traces/cpu_tier-*.trace, a request of the trace a slice; llama.cpp
cannot be told its routing, its own gate decides on random weights. Slices of disk probe, Moesaic, llama.cpp and disk probe
follow each other; at a residency whose two sides do not fit into this machine together they run one after the other,
each beside the memory probe, and speeds are compared as shares of it. A figure is the median over the pairs with its
interquartile range. The limit of a step is the longer of its two transfers: bytes that it touched over the read
bandwidth of memory, and bytes of experts copied over that of the disk.
"""

import argparse
import itertools
import os
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "common"))
import checkpoint
import moesaic
import peers
from disk_probe import DiskProbe
from figures import LimitProbe, ROOT, machine, save, summary
from memory_limit import MemoryLimit

TRACES = {"zipf": "Zipf 0.8, 8 topics, a new one with each slice and drift 1/64, repeat 0.2, correlation 0.5",
          "uniform": "uniform"}
POLICIES = {"zipf": ["on-demand", "lru", "lfu", "oracle 2"], "uniform": ["on-demand", "lfu", "oracle 2"]}
# The rows that the peer is measured beside.
DEFAULT_POLICY = "lfu"
BESIDE_EXPERTS = 1 << 30
DISK_SLICE_S = 0.1
READ_SLICE_MS = 50
CONTEXT = 64
WARM_STEPS = 16  # of a request of the trace
MAX_WARM_REQUESTS = 2


def steps_of(residency: float) -> int:
    """Steps of a slice: a token takes longer the less is resident."""
    return 4 if residency < 50 else 8 if residency < 100 else 16


class Moesaic:
    def __init__(self, options, model: pathlib.Path, trace: str, residency: float, policy: str, limit: MemoryLimit | None):
        name, _, layers = policy.partition(" ")
        flags = ["--load-format", "dummy", "--expert-memory", f"{residency}%", "--pack-dir", str(options.cache / "packs"),
                 "--expert-policy", DEFAULT_POLICY if name == "oracle" else name, "--max-sequences", str(options.streams),
                 "--max-model-len", str(CONTEXT), "--kv-memory", "32MiB",
                 "--replay-routing", str(ROOT / "benchmarks" / "traces" / f"cpu_tier-{trace}.trace")]
        if layers:
            flags += ["--replay-prefetch-layers", layers]
        self.streams = options.streams
        self.seeds = itertools.count(options.seed * 1000)
        self.server = moesaic.Server(options.build, model, options.threads, flags, limit.join if limit else None)

    def warm(self) -> None:
        for _ in range(MAX_WARM_REQUESTS):
            self.server.load(self.streams, 1, WARM_STEPS, next(self.seeds))
            now = self.server.counters()
            if now.get("moesaic_expert_memory_used_bytes", 0) >= now.get("moesaic_expert_memory_budget_bytes", 0):
                break

    def slice(self, steps: int) -> dict:
        """From sending the prompts, of a token each so that all steps are alike, to the last token. An oracle knows no
        request before it comes: its first layers load on demand, and at the end it prefetches some for nobody."""
        before = self.server.counters()
        requests = self.server.load(self.streams, 1, steps, next(self.seeds))
        after = self.server.counters()
        seconds = max(r["chunk_s"][-1] for r in requests) - min(r["sent_s"] for r in requests)

        def grown(prefix: str) -> float:
            return sum(value - before.get(name, 0.0) for name, value in after.items() if name.startswith(prefix))

        ran = grown("moesaic_steps_total")
        kinds = {kind: grown(f'moesaic_expert_copy_bytes_total{{kind="{kind}"}}')
                 for kind in ("demanded", "prefetched", "wasted")}
        lookups = grown("moesaic_expert_lookups_total")
        return {"steps_per_s": steps / seconds, "touched": grown("moesaic_step_bytes_total") / ran,
                "copied": (kinds["demanded"] + kinds["prefetched"]) / ran, "wasted": kinds["wasted"] / ran,
                "stall": grown("moesaic_expert_stall_seconds_total") / seconds,
                "busy": grown("moesaic_expert_copy_busy_seconds_total"), "ran": ran,
                "hits": grown('moesaic_expert_lookups_total{result="hit"}') / lookups if lookups else 1.0}

    def close(self) -> None:
        self.server.close()


class LlamaCpp:
    """With a stream's context started anew before it is full."""

    def __init__(self, options, file: pathlib.Path, limit: MemoryLimit):
        # Pages that are in memory already would be on nobody's account.
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        self.streams, self.steps = options.streams, CONTEXT
        self.random = random.Random(options.seed)
        self.worker = peers.Worker("llama.cpp", file, options.threads, options.streams, CONTEXT, limit.join)

    def _bytes_read(self) -> int:
        lines = pathlib.Path(f"/proc/{self.worker.process.pid}/io").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))

    def slice(self, steps: int) -> dict:
        if self.steps + steps >= CONTEXT:
            prompts = [[self.random.randrange(2, checkpoint.SHAPE["vocab_size"])] for _ in range(self.streams)]
            self.worker.ask(do="start", prompts=prompts)
            self.steps = 1
        before = self._bytes_read()
        seconds = self.worker.ask(do="decode", steps=steps)["seconds"]
        self.steps += steps
        return {"steps_per_s": steps / seconds, "copied": (self._bytes_read() - before) / steps}

    def close(self) -> None:
        self.worker.close()


class Probes:
    def __init__(self, options, pack: pathlib.Path):
        self.disk = DiskProbe(pack)
        self.memory = LimitProbe(options.build, options.threads)

    def around(self, work) -> dict:
        before = self.disk.bytes_per_s(DISK_SLICE_S)
        result = work()
        return {**result, "disk": (before + self.disk.bytes_per_s(DISK_SLICE_S)) / 2,
                "memory": self.memory.measure("read", "read_gb_per_s", READ_SLICE_MS)}

    def close(self) -> None:
        self.disk.close()
        self.memory.close()


def row_of(slices: list[dict], streams: int) -> dict:
    """Sums of a row, since a slice's last copies may land in the next one's count."""
    copied = sum(s["copied"] * s["ran"] for s in slices)
    ran = sum(s["ran"] for s in slices)
    needed = max(copied - sum(s["wasted"] * s["ran"] for s in slices), 0.0) / ran
    busy = sum(s["busy"] for s in slices)
    row = {"tokens_per_s": summary([streams * s["steps_per_s"] for s in slices]),
           "stall_share": summary([s["stall"] for s in slices]), "hit_rate": summary([s["hits"] for s in slices]),
           "bytes_per_token": copied / ran / streams, "needed_bytes_per_token": needed / streams,
           "disk_gb_per_s": summary([s["disk"] / 1e9 for s in slices]),
           "memory_gb_per_s": summary([s["memory"] / 1e9 for s in slices]),
           "of_limit": summary([s["steps_per_s"] * max(s["touched"] / s["memory"], needed / s["disk"]) for s in slices]),
           "bound_by_disk_share": sum(needed / s["disk"] > s["touched"] / s["memory"] for s in slices) / len(slices)}
    if busy > 0:
        row["copies_of_disk"] = summary([s["copied"] * s["ran"] / s["busy"] / s["disk"] for s in slices if s["busy"] > 0])
    return row


def compare(ours: list[dict], theirs: list[dict], streams: int, together: bool) -> dict:
    def speed(one: dict) -> float:
        return one["steps_per_s"] if together else one["steps_per_s"] / one["memory"]

    return {"peer_tokens_per_s": summary([streams * s["steps_per_s"] for s in theirs]),
            "peer_bytes_per_token": sum(s["copied"] for s in theirs) / len(theirs) / streams,
            "ratio": summary([speed(a) / speed(b) for a, b in zip(ours, theirs)]), "alternating": together}


def fits_twice(limit: int) -> bool:
    available = next(int(line.split()[1]) << 10 for line in open("/proc/meminfo", encoding="utf-8")
                     if line.startswith("MemAvailable"))
    return 2 * limit + (1 << 30) < available


def run_residency(options, model, gguf, probes, residency: float, report) -> None:
    limit = int(checkpoint.ALL_EXPERTS_BYTES * residency / 100) + BESIDE_EXPERTS
    together = fits_twice(limit)
    steps = steps_of(residency)

    def new_peer():
        group = MemoryLimit("peer", limit)
        peer = LlamaCpp(options, gguf, group)
        for _ in range(4):
            peer.slice(2)
        return peer, group

    def close(pair) -> None:
        if pair:
            pair[0].close()
            pair[1].close()

    peer = new_peer() if options.peer and together else None
    alone = []  # the peer's slices where both do not fit
    if options.peer and not together:
        other = new_peer()
        alone = [probes.around(lambda: other[0].slice(4)) for _ in range(options.pairs)]
        close(other)
    try:
        for trace in options.traces:
            for policy in [DEFAULT_POLICY] if residency >= 100 else options.policies or POLICIES[trace]:
                group = MemoryLimit("server", limit)
                ours = Moesaic(options, model, trace, residency, policy, group)
                theirs = []
                beside = peer if policy == DEFAULT_POLICY else None

                def one(server=ours, beside=beside, theirs=theirs) -> dict:
                    result = server.slice(steps)
                    if beside:
                        theirs.append(beside[0].slice(1 if residency < 50 else 2))
                    return result

                try:
                    ours.warm()
                    one()
                    theirs.clear()
                    slices = [probes.around(one) for _ in range(options.pairs)]
                finally:
                    ours.close()
                    peak = group.peak_bytes()
                    group.close()
                row = {"trace": trace, "residency_percent": residency, "policy": policy, "memory_limit": limit,
                       "peak_of_group": peak, **row_of(slices, options.streams)}
                if options.peer and policy == DEFAULT_POLICY:
                    row.update(compare(slices, theirs or alone, options.streams, together))
                report(row)
    finally:
        close(peer)


def table(rows: list[dict]) -> str:
    lines = ["| Routing | Residency | Policy | tokens/s | Stalled | GB a token | Hits | Copies ÷ disk | Of the limit | "
             "llama.cpp, tokens/s | Moesaic ÷ llama.cpp |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        def span(key: str, form: str, scale: float = 1.0, unit: str = "", row=row) -> str:
            if key not in row:
                return "–"
            median, low, high = (format(scale * row[key][q], form) for q in ("median", "q1", "q3"))
            return f"{median}{unit} ({low}–{high})"

        ratio = span("ratio", ".2f") + ("" if row.get("alternating", True) else " *")
        bound = "disk" if row["bound_by_disk_share"] > 0.5 else "memory"
        lines.append(f"| {row['trace']} | {row['residency_percent']:g} % | {row['policy']} | {span('tokens_per_s', '.2f')} | "
                     f"{100 * row['stall_share']['median']:.0f} % | {row['bytes_per_token'] / 1e9:.3f} | "
                     f"{100 * row['hit_rate']['median']:.0f} % | {span('copies_of_disk', '.2f')} | "
                     f"{span('of_limit', '.2f')} {bound} | {span('peer_tokens_per_s', '.2f')} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute's look: 5 pairs, 12.5 and 50 %%, three policies")
    parser.add_argument("--pairs", type=int, help="pairs of slices per figure")
    parser.add_argument("--residency", help="shares of the experts that fit, in %%")
    parser.add_argument("--traces", default="zipf,uniform")
    parser.add_argument("--policies", help="on-demand, fifo, lru, lfu, 'oracle N' (N layers ahead)")
    parser.add_argument("--streams", type=int, default=1, help="that decode side by side")
    parser.add_argument("--no-peer", dest="peer", action="store_false")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=pathlib.Path, default=ROOT / ".cache" / "bench",
                        help="folder for pack and GGUF file (20 GB), on the disk to measure")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "benchmarks" / "results" / "cpu_tier.json")
    options = parser.parse_args()
    options.pairs = options.pairs or (5 if options.quick else 20)
    options.residency = [float(r) for r in (options.residency or ("12.5,50" if options.quick else "12.5,25,50,100")).split(",")]
    options.traces = (options.traces if not options.quick else "zipf").split(",")
    options.policies = options.policies.split(",") if options.policies else \
        ["on-demand", "lfu", "oracle 2"] if options.quick else None

    # Refuses before anything large is written.
    MemoryLimit("probe", BESIDE_EXPERTS).close()
    options.cache = options.cache / "cpu_tier"
    model = checkpoint.make(options.cache)
    gguf = checkpoint.to_gguf(options.cache, options.seed) if options.peer else None
    print("packing, if there is no pack yet", flush=True)
    Moesaic(options, model, "zipf", 12.5, DEFAULT_POLICY, None).close()
    pack = next((options.cache / "packs").glob("experts-*.pack"))
    result = {"command": " ".join(["scripts/bench.sh cpu_tier", *sys.argv[1:]]), **machine(), "seed": options.seed,
              "threads": options.threads, "streams": options.streams, "pairs": options.pairs,
              "experts_bytes": checkpoint.ALL_EXPERTS_BYTES, "memory_beside_experts": BESIDE_EXPERTS,
              "routing": {"traces": TRACES, "llama.cpp": "its own gate on random weights"}, "rows": []}
    probes = Probes(options, pack)

    def report(row: dict) -> None:
        result["rows"].append(row)
        save(result, options.output)
        print(table([row]).splitlines()[-1], flush=True)

    try:
        for residency in options.residency:
            run_residency(options, model, gguf, probes, residency, report)
    finally:
        probes.close()
    print("\n" + table(result["rows"]))
    print(f"\nwritten to {options.output}")


if __name__ == "__main__":
    main()
