#!/usr/bin/env python3
"""Compares Moesaic's tokenizers, live, with Hugging Face `tokenizers` and SentencePiece.

    scripts/tokenizer_oracle.py --build build [--seed N] [--bytes N] [--only NAME] [FILE...]

Texts come from scripts/tokenizer_corpus.py with a fresh seed, plus every character, assigned or not, outside the
empty planes, alone and after a letter. Compared: ids with and without special tokens in text and around it, decoded text of those ids
and of random ids, for the committed tokenizers, the demo model's, variations that only this script makes, and the
files given: real ones are in the wheels of litellm (DeepSeek's tokenizer.json) and mistral-common (Mixtral's
tokenizer.model).
"""

import argparse
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import time

import tokenizers

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tokenizer_corpus  # noqa: E402
from make_tokenizer_goldens import SPECIAL_TOKENS, SPACE, TESTDATA, SentencePiece  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
ADD_SPECIAL, PARSE_SPECIAL, DECODE, SKIP_SPECIAL = 1, 2, 4, 8


class Moesaic:
    """One tokenizer_oracle process with one tokenizer."""

    def __init__(self, binary, folder):
        self.process = subprocess.Popen([binary, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, flags, payload):
        self.process.stdin.write(struct.pack("<BI", flags, len(payload)) + payload)
        self.process.stdin.flush()
        length, = struct.unpack("<i", self.process.stdout.read(4))
        return None if length < 0 else self.process.stdout.read(length)

    def encode(self, text, add_special, parse_special):
        answer = self.ask(ADD_SPECIAL * add_special | PARSE_SPECIAL * parse_special, text.encode())
        return None if answer is None else list(struct.unpack(f"<{len(answer) // 4}i", answer))

    def decode(self, ids, skip_special):
        return self.ask(DECODE | SKIP_SPECIAL * skip_special, struct.pack(f"<{len(ids)}i", *ids)).decode()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def unless_panic(call):
    """None where the reference itself fails, as `tokenizers` does on overlapping added tokens."""
    try:
        return call()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return None


class HuggingFace:
    def __init__(self, folder):
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.size = self.tokenizer.get_vocab_size()

    def encode(self, text, add_special, parse_special):
        self.tokenizer.encode_special_tokens = not parse_special
        return unless_panic(lambda: self.tokenizer.encode(text, add_special_tokens=add_special).ids)

    def decode(self, ids, skip_special):
        return unless_panic(lambda: self.tokenizer.decode(ids, skip_special_tokens=skip_special))

    def token(self, token_id):
        return self.tokenizer.id_to_token(token_id) or ""


class SentencePieceFile:
    def __init__(self, folder):
        self.model = SentencePiece((folder / "tokenizer.model").read_bytes())
        self.size = self.model.size

    def encode(self, text, add_special, parse_special):
        return self.model.encode(text, add_special, parse_special)

    def decode(self, ids, skip_special):
        """SentencePiece always leaves control tokens out, and has a text of its own for unknown ones."""
        first = self.model.first
        ids = [i for i in ids if 0 <= i < self.size]
        special = [i for i in ids if first.is_control(i) or first.is_unknown(i)]
        return None if special and not skip_special else first.decode([i for i in ids if i not in special])

    def token(self, token_id):
        return self.model.first.id_to_piece(token_id) if token_id < self.size else ""


def variations(scratch):
    """Pipelines beyond the committed ones, made from them: name and change of the document."""
    def change(name, base, edit):
        document = json.loads((TESTDATA / base / "tokenizer.json").read_text(encoding="utf-8"))
        edit(document)
        folder = scratch / name
        folder.mkdir()
        (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
        return name, folder

    def normalizer(*steps):
        def edit(document):
            document["normalizer"] = {"type": "Sequence", "normalizers": list(steps)}
        return edit

    def pre_tokenizer(*steps):
        def edit(document):
            document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": list(steps)}
        return edit

    def model(**fields):
        def edit(document):
            document["model"].update(fields)
        return edit

    def regex(pattern, behavior, invert=False):
        return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    prefix_space = dict(byte_level, add_prefix_space=True, use_regex=True)
    yield change("nfkc", "qwen", normalizer({"type": "NFKC"}))
    yield change("nfd", "qwen", normalizer({"type": "NFD"}))
    yield change("nfkd_lower_accents", "qwen", normalizer({"type": "NFKD"}, {"type": "Lowercase"},
                                                          {"type": "StripAccents"}))
    yield change("lowercase", "qwen", normalizer({"type": "Lowercase"}))
    yield change("nmt_strip", "qwen", normalizer({"type": "Nmt"},
                                                 {"type": "Strip", "strip_left": True, "strip_right": True}))
    yield change("replace", "qwen", normalizer(
        {"type": "Replace", "pattern": {"Regex": r"\s+|[\p{P}]{2,}"}, "content": " "},
        {"type": "Replace", "pattern": {"String": "the"}, "content": "a"}, {"type": "Prepend", "prepend": "é"}))
    yield change("prefix_space", "olmoe", pre_tokenizer(prefix_space))
    yield change("digits_punctuation", "qwen", pre_tokenizer(
        {"type": "Punctuation", "behavior": "MergedWithPrevious"}, {"type": "Digits", "individual_digits": True},
        byte_level))
    yield change("digits_runs", "qwen", pre_tokenizer({"type": "Digits", "individual_digits": False},
                                                      {"type": "Punctuation"}, byte_level))
    yield change("whitespace", "qwen", pre_tokenizer({"type": "Whitespace"}, byte_level))
    yield change("whitespace_split", "qwen", pre_tokenizer({"type": "WhitespaceSplit"}, prefix_space))
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            yield change(f"split_{behavior}_{invert}", "qwen",
                         pre_tokenizer(regex(r"\w|\s|,", behavior, invert), byte_level))
    yield change("split_string", "qwen", pre_tokenizer(
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithNext", "invert": False}, byte_level))
    yield change("classes", "qwen", pre_tokenizer(
        regex(r"[\h\v]+|\d{1,3}|[^\w\s]|\W\w?|^.|.$|(?<=a)\S+|[\u4e00-\u9fff]|\x41\x{e9}", "Isolated"), byte_level))
    yield change("llama3", "qwen", lambda document: (
        pre_tokenizer(regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", "Isolated"), byte_level)(document),
        model(ignore_merges=True)(document)))
    yield change("o200k", "qwen", pre_tokenizer(regex(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+", "Isolated"), byte_level))
    yield change("no_byte_fallback", "mixtral", model(byte_fallback=False))
    yield change("unfused_unknown", "mixtral", model(byte_fallback=False, fuse_unk=False))
    yield change("no_unknown", "mixtral", model(byte_fallback=False, unk_token=None))

    def few_bytes(document):
        for byte in range(0x80, 0xE0):
            document["model"]["vocab"][f"(byte {byte})"] = document["model"]["vocab"].pop(f"<0x{byte:02X}>")
    yield change("some_byte_tokens", "mixtral", few_bytes)
    for scheme in ("always", "never"):
        for split in (False, True):
            yield change(f"metaspace_{scheme}_{split}", "mixtral_metaspace", pre_tokenizer(
                {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split}))

    def t5_old(document):
        document["normalizer"] = document["normalizer"]["normalizers"][0]
        document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": SPACE, "add_prefix_space": True}]}
    yield change("t5_old", "t5", t5_old)

    def unigram_bytes(document):
        document["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
        document["model"]["byte_fallback"] = True
        document["decoder"] = {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    yield change("unigram_bytes", "t5", unigram_bytes)
    yield change("no_decoder", "t5", lambda document: document.update(decoder=None))
    yield change("fused_replace", "qwen", lambda document: document.update(decoder={"type": "Sequence", "decoders": [
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        {"type": "Replace", "pattern": {"String": "aba"}, "content": "<>"},
        {"type": "Strip", "content": " ", "start": 2, "stop": 0}]}))
    yield change("token_replace", "t5", lambda document: document.update(decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"Regex": r"\p{L}+"}, "content": "w"},
        {"type": "Strip", "content": SPACE, "start": 1, "stop": 0}]}))

    def roberta(document):
        document["post_processor"] = {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 2000],
                                      "cls": ["<|im_start|>", 2001], "trim_offsets": True, "add_prefix_space": True}
    yield change("roberta", "qwen", roberta)

    def flags(document):
        for index, token in enumerate(document["added_tokens"]):
            token.update(lstrip=index % 2 == 0, rstrip=index % 3 == 0, single_word=index % 4 == 3,
                         normalized=index % 5 == 4)
        normalizer({"type": "Lowercase"})(document)
    yield change("added_token_flags", "qwen", flags)
    yield change("added_token_flags_olmoe", "olmoe", flags)


def given_files(files, scratch):
    """A folder with each file under the name it would have in a model's."""
    for file in files:
        folder = scratch / file.name
        folder.mkdir()
        name = "tokenizer.json" if file.suffix == ".json" else "tokenizer.model"
        (folder / name).write_bytes(file.read_bytes())
        yield file.name, folder


def byte_runs_are_valid(reference, ids):
    """Whether every run of byte tokens is UTF-8: elsewhere Moesaic keeps more than Hugging Face."""
    run = b""
    for token_id in list(ids) + [-1]:
        byte_token = re.fullmatch("<0x([0-9A-Fa-f]{2})>", reference.token(token_id) if token_id >= 0 else "")
        if byte_token:
            run += bytes.fromhex(byte_token[1])
            continue
        try:
            run.decode()
        except UnicodeDecodeError:
            return False
        run = b""
    return True


def compare(name, folder, binary, texts, rng):
    """Number of differences; prints the first few."""
    started = time.monotonic()
    ours = Moesaic(binary, folder)
    reference = (HuggingFace if (folder / "tokenizer.json").exists() else SentencePieceFile)(folder)
    differences = kept = unknown = 0

    def check(kind, given, mine, theirs):
        nonlocal differences, unknown
        if theirs is None:
            unknown += 1
        elif mine != theirs:
            differences += 1
            if differences <= 3:
                at = next((i for i, (a, b) in enumerate(zip(mine or [], theirs)) if a != b), -1)
                print(f"  {kind} {given!r:.200} differ at {at}: {mine!r:.200} for {theirs!r:.200}")

    for index, text in enumerate(texts):
        add_special, parse_special = index % 2 == 0, index % 5 != 0
        theirs = reference.encode(text, add_special, parse_special)
        check("ids of", text, ours.encode(text, add_special, parse_special), theirs)
        if index % 4 == 0 and theirs is not None and byte_runs_are_valid(reference, theirs):
            check("text of", theirs, ours.decode(theirs, add_special), reference.decode(theirs, add_special))
    for _ in range(300):
        ids = [rng.randrange(reference.size + 3) for _ in range(rng.randint(0, 30))]
        if byte_runs_are_valid(reference, ids):
            check("text of", ids, ours.decode(ids, False), reference.decode(ids, False))
        else:
            kept += 1
    ours.close()
    print(f"{name}: {len(texts)} texts, {differences} differences"
          f"{f', {kept} random ids left out' if kept else ''}"
          f"{f', {unknown} without a reference' if unknown else ''}, {time.monotonic() - started:.1f} s", flush=True)
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--bytes", type=int, default=1_500_000, help="of text for each committed tokenizer")
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="tokenizer.json or tokenizer.model files")
    parser.add_argument("--only", default="", help="tokenizers whose name contains this")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)

    binary = arguments.build / "tests" / "tokenizer_oracle"
    characters = [chr(c) for c in [*range(0xD800), *range(0xE000, 0x33500), *range(0xE0000, 0xE0200), 0x10FFFF]]
    alphabet = ["".join(f"{c} a{c}" for c in characters[i:i + 50]) for i in range(0, len(characters), 50)]
    texts = tokenizer_corpus.make_chunks(arguments.seed, arguments.bytes, SPECIAL_TOKENS)
    fewer = tokenizer_corpus.make_chunks(arguments.seed + 1, arguments.bytes // 5, SPECIAL_TOKENS)
    rng = random.Random(arguments.seed)
    differences = 0
    with tempfile.TemporaryDirectory() as scratch:
        cases = [(folder.name, folder, texts + alphabet) for folder in sorted(TESTDATA.iterdir())
                 if folder.is_dir()]
        cases += [(folder.name, folder, texts) for folder in sorted((ROOT / "models").glob("*"))
                  if (folder / "tokenizer.json").exists()]
        cases += [(name, folder, fewer + alphabet) for name, folder in variations(pathlib.Path(scratch))]
        cases += [(name, folder, texts + alphabet)
                  for name, folder in given_files(arguments.files, pathlib.Path(scratch))]
        for name, folder, case_texts in cases:
            if arguments.only in name:
                differences += compare(name, folder, binary, case_texts, rng)
    print(f"{differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
