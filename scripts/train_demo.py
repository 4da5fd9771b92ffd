#!/usr/bin/env python3
"""Train the demo model: a small Qwen3-MoE that writes WordNet-style glosses.

The model learns lines such as

    violin (noun): bowed stringed instrument that is the highest member of ...

so that a prompt of one word is answered with a definition. Everything is made
here: the text from the WordNet data files, a byte-level BPE tokenizer, the
training, and the export to a Hugging Face folder (one tensor per expert) that
`transformers` and Moesaic load. The figures of the model card are written to
`figures.json` and `samples.txt`.

Needs: torch, transformers (5 or later), tokenizers, safetensors, and the WordNet
3.0 data files (Debian and Ubuntu: the package `wordnet-base`).

With the same seed, thread count, device and library versions a run with --steps
repeats exactly. A run with --minutes goes by the clock until the learning rate
falls, and then names the --steps that repeat it.
"""

import argparse
import itertools
import json
import random
import re
import sys
import time
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo_export import export_folder, load_weights, measure_folder  # noqa: E402
from demo_model import IGNORE, DemoModel, Shape, make_optimizers  # noqa: E402

END = "<|endoftext|>"
PAD = "<|pad|>"
SPLIT_SEED = 1  # every run holds the same glosses out, so that --init leaks none
# The pre-tokenizer expression of the Qwen2 and Qwen3 tokenizers.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


# ---------------------------------------------------------------- text


def read_ranks(wordnet):
    """Maps (part of speech, lemma in lower case, synset offset) to (rank, common).

    The rank is the sense's place among the word's senses. A sense is common if it is
    one of the word's first two and occurs in the corpus that WordNet's authors tagged.
    """
    ranks = {}
    for pos in ("noun", "verb", "adj", "adv"):
        for line in open(wordnet / f"index.{pos}", encoding="utf-8"):
            if line.startswith("  "):
                continue
            fields = line.split()
            count = int(fields[2])
            tagged = int(fields[-count - 1])
            for rank, offset in enumerate(fields[-count:], start=1):
                ranks[pos, fields[0], offset] = rank, rank <= min(2, tagged)
    return ranks


def clean_gloss(gloss, examples):
    """Keeps the definition and, if asked, its first example, with plain spacing."""
    quotes = [m.start() for m in re.finditer('"', gloss)]
    if len(quotes) >= 2:
        gloss = gloss[: quotes[1] + 1] if examples or quotes[0] < 3 else gloss[: quotes[0]]
    return re.sub(r"\s+", " ", gloss).strip().rstrip(";:").strip()


def read_synsets(wordnet, examples):
    """Reads every synset as (part of speech, [(word, weight), ...], gloss, common).

    A word's weight is one over the rank of this sense among the word's senses, so
    that a word is seen most often with its commonest meaning.
    """
    ranks = read_ranks(wordnet)
    synsets = []
    for pos in ("noun", "verb", "adj", "adv"):
        name = {"adj": "adjective", "adv": "adverb"}.get(pos, pos)
        for line in open(wordnet / f"data.{pos}", encoding="utf-8"):
            if line.startswith("  "):
                continue
            fields, gloss = line.split("|", 1)
            fields = fields.split()
            words, common = [], False
            for i in range(int(fields[3], 16)):
                lemma = re.sub(r"\((a|p|ip)\)$", "", fields[4 + 2 * i])
                rank, tagged = ranks.get((pos, lemma.lower(), fields[0]), (1, False))
                words.append((lemma.replace("_", " "), 1.0 / rank))
                common = common or tagged
            synsets.append((name, words, clean_gloss(gloss, examples), common))
    return synsets


def draw_line(synset, rng):
    """Writes a synset as (head, gloss) with one of its words, drawn by weight."""
    pos, words, gloss, _ = synset
    word = rng.choices([w for w, _ in words], [p for _, p in words])[0]
    return f"{word} ({pos}):", f" {gloss}"


def split_synsets(synsets, fraction=0.02):
    """Shuffles the synsets and holds out the given fraction of them."""
    synsets = list(synsets)
    random.Random(SPLIT_SEED).shuffle(synsets)
    held = int(len(synsets) * fraction)
    return synsets[held:], synsets[:held]


def train_tokenizer(synsets, vocab_size, seed):
    """Trains a byte-level BPE with the pipeline of the Qwen tokenizers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rng = random.Random(seed)
    tokenizer.train_from_iterator(("".join(draw_line(s, rng)) for s in synsets), trainer)
    tokenizer.add_special_tokens([END, PAD])
    return tokenizer


def encode_lines(tokenizer, lines):
    """Encodes (head, gloss) pairs; returns the ids and the head lengths."""
    end = tokenizer.token_to_id(END)
    heads = [len(e.ids) for e in tokenizer.encode_batch([head for head, _ in lines])]
    whole = tokenizer.encode_batch([head + gloss for head, gloss in lines])
    return [e.ids + [end] for e in whole], heads


def pack_rows(documents, length, pad):
    """Packs documents into rows of `length` + 1 tokens, each beginning a document.

    A document that runs over the end of its row is cut there; the next epoch's
    shuffle puts the cut elsewhere.
    """
    rows, row = [], []
    for ids in documents:
        row.extend(ids)
        if len(row) > length:
            rows.append(row[: length + 1])
            row = []
    if row:
        rows.append(row + [pad] * (length + 1 - len(row)))
    return torch.tensor(rows)


# ---------------------------------------------------------------- training


class Progress:
    """A line rewritten in place on a terminal, plain lines now and then elsewhere."""

    def __init__(self, every=20.0):
        self.live = sys.stderr.isatty()
        self.every = 0.5 if self.live else every
        self.last = 0.0

    def show(self, text, force=False):
        """Shows the text if the last one is old enough."""
        now = time.monotonic()
        if force or now - self.last >= self.every:
            self.last = now
            sys.stderr.write(f"\r\x1b[K{text}" if self.live else f"{text}\n")
            sys.stderr.flush()

    def close(self):
        """Ends the line on a terminal."""
        if self.live:
            sys.stderr.write("\n")


def epoch_rows(synsets, tokenizer, args, epoch):
    """Draws, shuffles, encodes and packs one epoch."""
    rng = random.Random(f"{args.seed}/{epoch}")
    drawn = [s for s in synsets if s[3] or rng.random() < args.rare]
    rng.shuffle(drawn)
    documents, _ = encode_lines(tokenizer, [draw_line(s, rng) for s in drawn])
    return pack_rows(documents, args.length, tokenizer.token_to_id(PAD))


def learning_rate(step, total, share, warmup=100):
    """Linear warm-up to one, a constant share of the steps, then a straight fall to zero.

    While the total is unknown (a run by the clock) the rate does not fall yet.
    """
    rate = min(1.0, (step + 1) / warmup)
    if total is None:
        return rate
    steady = round(share * total)
    return rate if step < steady else rate * (total - step) / (total - steady)


def batches(synsets, tokenizer, args):
    """Yields (epoch reached, rows) without end; odd rows at an epoch's end are left out."""
    for epoch in itertools.count():
        rows = epoch_rows(synsets, tokenizer, args, epoch)
        count = len(rows) // args.batch
        for i in range(count):
            yield epoch + i / count, rows[i * args.batch : (i + 1) * args.batch]


def train(model, synsets, tokenizer, args, save):
    """Trains the model; returns the steps, the tokens and the seconds.

    The weights handed to `save` are an exponential mean of the recent ones.
    """
    device, pad = torch.device(args.device), tokenizer.token_to_id(PAD)
    muon, adam = make_optimizers(model)
    progress = Progress()
    parameters = list(model.parameters())
    mean = [p.detach().clone() for p in parameters]
    start = last_save = time.monotonic()
    total, recent, seen = None if args.minutes else args.steps, None, 0
    for step, (epoch, rows) in enumerate(batches(synsets, tokenizer, args)):
        elapsed = time.monotonic() - start
        if total is None and step and elapsed >= 60 * args.minutes * args.steady:
            total = round(step / args.steady)
            progress.show(f"--steps {total} repeats this run; its rate falls now", force=True)
        if step == total:
            break
        rate = learning_rate(step, total, args.steady)
        adam.param_groups[0]["lr"] = rate * args.lr
        rows = rows.to(device)
        targets = rows[:, 1:].masked_fill(rows[:, 1:] == pad, IGNORE)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            loss, balance = model(rows[:, :-1], targets)
        model.zero_grad(set_to_none=True)
        (loss + args.balance * balance).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        muon.step(rate * args.matrix_lr)
        keep = min(0.995, step / (step + 10))
        torch._foreach_lerp_(mean, [p.detach() for p in parameters], 1 - keep)
        seen += targets.numel()
        recent = loss.item() if recent is None else 0.97 * recent + 0.03 * loss.item()
        progress.show(
            f"step {step + 1}/{total or '?'}  epoch {epoch:.2f}  loss {recent:.3f}  "
            f"balance {balance.item():.3f}  {seen / (time.monotonic() - start):.0f} tokens/s  "
            f"{elapsed / 60:.1f} min",
            force=step == 0,
        )
        if time.monotonic() - last_save > 60 * args.save_minutes:
            save(mean)
            last_save = time.monotonic()
    progress.close()
    save(mean)
    return total, seen, time.monotonic() - start


def held_out(synsets, tokenizer):
    """Encodes the held-out synsets; returns the ids and the head lengths."""
    rng = random.Random(f"{SPLIT_SEED}/held-out")
    return encode_lines(tokenizer, [draw_line(s, rng) for s in synsets])


def unigram_loss(synsets, tokenizer, documents, heads):
    """The loss per gloss token of a model that knows only the tokens' frequencies.

    It knows them from every gloss that is not held out.
    """
    rng = random.Random(SPLIT_SEED)
    known, starts = encode_lines(tokenizer, [draw_line(s, rng) for s in synsets])
    counts = torch.ones(tokenizer.get_vocab_size(), dtype=torch.float64)
    for ids, start in zip(known, starts):
        counts += torch.bincount(torch.tensor(ids[start:]), minlength=len(counts))
    log_probs = (counts / counts.sum()).log()
    glosses = [t for ids, head in zip(documents, heads) for t in ids[head:]]
    return -log_probs[torch.tensor(glosses)].mean().item()


def parse_args():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    switch = argparse.BooleanOptionalAction
    add = parser.add_argument
    add("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="WordNet data files")
    add("--out", type=Path, required=True, help="Hugging Face folder to write")
    add("--figures", type=Path, help="folder of figures.json and samples.txt (default: --out)")
    add("--init", type=Path, help="go on from this folder's weights and tokenizer")
    add("--rare", type=float, default=1.0, help="share of the uncommon glosses in an epoch")
    add("--examples", action=switch, default=True, help="keep a gloss's first example")
    add("--seed", type=int, default=1, help="seed of the draws and the weights (default 1)")
    add("--steps", type=int, default=4000, help="steps; 720 see each gloss once (default 4000)")
    add("--minutes", type=float, help="choose the steps by the clock, to take about this long")
    add("--steady", type=float, default=0.5, help="share of steps before the rate falls (0.5)")
    add("--save-minutes", type=float, default=10.0, help="minutes between exports (default 10)")
    add("--threads", type=int, default=2, help="CPU threads (default 2)")
    add("--device", default="cpu", help="torch device, as cpu or cuda (default cpu)")
    add("--bf16", action=switch, default=True, help="bfloat16 matrix products (default on)")
    add("--compile", action=switch, default=False, help="compile the attention; needs a compiler")
    add("--batch", type=int, default=16, help="rows in a step (default 16)")
    add("--length", type=int, default=256, help="tokens in a row (default 256)")
    add("--lr", type=float, default=3e-3, help="peak rate of AdamW (default 0.003)")
    add("--matrix-lr", type=float, default=5e-3, help="peak rate of Muon (default 0.005)")
    add("--balance", type=float, default=0.005, help="weight of load balancing (default 0.005)")
    return parser.parse_args()


def main():
    """Makes the text and the tokenizer, trains, exports and measures."""
    args = parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    shape = Shape()

    synsets, held = split_synsets(read_synsets(args.wordnet, args.examples))
    if args.init:
        tokenizer = Tokenizer.from_file(str(args.init / "tokenizer.json"))
    else:
        tokenizer = train_tokenizer(synsets, shape.vocab, args.seed)
    print(f"{len(synsets)} glosses to train on, {len(held)} held out", file=sys.stderr)

    model = DemoModel(shape)
    if args.init:
        model.load_state_dict(load_weights(args.init, shape))
    model.to(args.device)
    names = [name for name, _ in model.named_parameters()]
    print(f"{sum(p.numel() for p in model.parameters())} parameters", file=sys.stderr)

    if args.compile:
        for layer in model.layers:
            layer.attention.compile(dynamic=False)

    def save(weights):
        export_folder(args.out, shape, dict(zip(names, weights)), tokenizer, END, PAD)

    steps, seen, seconds = train(model, synsets, tokenizer, args, save)

    pad = tokenizer.token_to_id(PAD)
    documents, heads = held_out(held, tokenizer)
    figures = {
        "seed": args.seed,
        "steps": steps,
        "training_tokens": seen,
        "training_minutes": round(seconds / 60, 1),
        "unigram_loss": round(unigram_loss(synsets, tokenizer, documents, heads), 4),
    }
    measured, samples = measure_folder(args.out, documents, heads, pad)
    figures.update(measured)
    folder = args.figures or args.out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    (folder / "samples.txt").write_text(samples)
    print(json.dumps(figures, indent=2))
    print(samples)


if __name__ == "__main__":
    main()
