#!/usr/bin/env python3
"""Makes tests/tokenizer/testdata: small tokenizers of every pipeline, texts, and the ids that Hugging
Face `tokenizers` and SentencePiece give them.

    scripts/make_tokenizer_goldens.py TEXT

TEXT is the file of English prose that the vocabularies are trained on (WikiText-2's valid.txt). The
texts themselves come from scripts/tokenizer_corpus.py and from this repository's own files.

corpus.bin: for each text a 32-bit length and its bytes. For each pipeline a folder with its
tokenizer.json or tokenizer.model, and ids.bin: per text the 64-bit FNV-1a hash of its ids as
little-endian int32, with special tokens added; then for the first FULL_TEXTS texts the ids in full,
each a 32-bit count and int32s.
"""

import argparse
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys

import sentencepiece
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tokenizer_corpus  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTDATA = ROOT / "tests" / "tokenizer" / "testdata"
SEED = 20240611
CORPUS_BYTES = 1_080_000
FULL_TEXTS = 120
VOCABULARY = 2000
SPACE = "\u2581"

QWEN_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<think>",
                  "|||IP_ADDRESS|||", "<mask>", "<Word>"]


def training_texts(path):
    english = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return english + [s for group in tokenizer_corpus.SENTENCES.values() for s in group] * 20


def repository_lines():
    names = subprocess.run(["git", "ls-files", "*.md", "*.h", "*.cc", "*.py", "*.cmake"], cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout.split()
    return [line for name in sorted(names) for line in (ROOT / name).read_text(encoding="utf-8").splitlines(True)]


def byte_level_bpe(texts, normalizer, pre_tokenizer):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def qwen(texts):
    """Qwen2 and Qwen3: NFC, its own expression, byte-level BPE."""
    tokenizer = byte_level_bpe(texts, normalizers.NFC(), pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(QWEN_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)]))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False)
                                  for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return tokenizer


def olmoe(texts):
    """OLMoE and GPT-NeoX: NFC, GPT-2's expression, byte-level BPE, runs of spaces as added tokens."""
    tokenizer = byte_level_bpe(texts, normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False),
                                  AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    tokenizer.add_tokens([AddedToken("|||IP_ADDRESS|||", normalized=True),
                          AddedToken("<Word>", normalized=True, single_word=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="$A <|endoftext|>", pair=None,
                                      special_tokens=[("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))])])
    return tokenizer


def byte_fallback_bpe(texts):
    """The model of Llama and Mixtral: characters of frequent use, bytes for the others."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True)
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False, special_tokens=specials,
                                  limit_alphabet=300)
    tokenizer.train_from_iterator(texts, trainer)
    # The byte tokens were special for the trainer only.
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(document))
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(),
                                           decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair=None,
                                                             special_tokens=[("<s>", 1)])
    return tokenizer


def mixtral(texts):
    """Mixtral as converted until 2024: a normalizer writes the spaces."""
    tokenizer = byte_fallback_bpe(texts)
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    return tokenizer


def mixtral_metaspace(texts):
    """Mixtral as converted since: a pre-tokenizer writes the spaces, and only before the first word."""
    tokenizer = byte_fallback_bpe(texts)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    return tokenizer


def train_sentencepiece(texts, folder, **options):
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line.strip("\n") for line in texts), model_prefix=str(prefix), vocab_size=VOCABULARY,
        num_threads=1, minloglevel=2, **options)
    (folder / "tokenizer.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")


class SentencePiece:
    """The ids of Hugging Face's LlamaTokenizer, by SentencePiece itself: special tokens are found first, and only
    the beginning of a text gets a space before it."""

    # Protobuf merges this normalizer_spec { add_dummy_prefix: false } with the model's own.
    WITHOUT_PREFIX = b"\x1a\x02\x18\x00"

    def __init__(self, model):
        self.first = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.later = sentencepiece.SentencePieceProcessor(model_proto=model + self.WITHOUT_PREFIX)
        self.size = self.first.get_piece_size()
        special = [self.first.id_to_piece(i) for i in range(self.size)
                   if self.first.is_control(i) or self.first.is_unknown(i)]
        self.special = re.compile("(" + "|".join(map(re.escape, sorted(special, key=len, reverse=True))) + ")")

    def encode(self, text, add_special=True, parse_special=True):
        ids = [self.first.bos_id()] if add_special else []
        for index, part in enumerate(self.special.split(text) if parse_special else [text]):
            if index % 2 == 1:
                ids.append(self.first.piece_to_id(part))
            elif part:
                ids += (self.first if index == 0 else self.later).encode(part)
        return ids


def llama_model(texts, folder):
    """Llama and Mixtral where only SentencePiece's own file is there."""
    train_sentencepiece(texts, folder, model_type="bpe", byte_fallback=True, character_coverage=0.98,
                        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
                        allow_whitespace_only_pieces=True)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": True, "add_eos_token": False, "legacy": False}) + "\n", encoding="utf-8")
    return SentencePiece((folder / "tokenizer.model").read_bytes())


def message_field(message, wanted):
    """The first length-delimited field of this number of a serialised Protobuf message."""
    def varint(pos):
        value = shift = 0
        while True:
            value |= (message[pos] & 0x7F) << shift
            shift += 7
            pos += 1
            if message[pos - 1] < 0x80:
                return value, pos
    pos = 0
    while pos < len(message):
        key, pos = varint(pos)
        length, pos = {0: lambda: (0, varint(pos)[1]), 1: lambda: (8, pos), 2: lambda: varint(pos),
                       5: lambda: (4, pos)}[key & 7]()
        if key == wanted << 3 | 2:
            return message[pos:pos + length]
        pos += length
    raise KeyError(wanted)


def charsmap(model_path):
    """ModelProto.normalizer_spec.precompiled_charsmap, without sentencepiece's generated classes."""
    return message_field(message_field(model_path.read_bytes(), 3), 2)


def t5(texts, folder):
    """T5 and Switch: SentencePiece's rules and Unigram model, converted to tokenizer.json."""
    scratch = folder / "t5-train"
    processor = train_sentencepiece(texts, scratch, model_type="unigram", character_coverage=0.9995, pad_id=0,
                                    eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc")
    vocabulary = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.vocab_size())]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(charsmap(scratch / "tokenizer.model")), normalizers.Strip(left=False, right=True),
        normalizers.Replace(tokenizers.Regex(" {2,}"), SPACE)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<pad>", "</s>", "<unk>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair=None,
                                                             special_tokens=[("</s>", 1)])
    shutil.rmtree(scratch)
    return tokenizer


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def write_ids(folder, all_ids):
    with open(folder / "ids.bin", "wb") as file:
        for ids in all_ids:
            file.write(struct.pack("<Q", fnv1a(struct.pack(f"<{len(ids)}i", *ids))))
        for ids in all_ids[:FULL_TEXTS]:
            file.write(struct.pack(f"<I{len(ids)}i", len(ids), *ids))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=pathlib.Path)
    arguments = parser.parse_args()

    texts = training_texts(arguments.text)
    corpus = tokenizer_corpus.make_chunks(SEED, CORPUS_BYTES, SPECIAL_TOKENS, repository_lines())
    TESTDATA.mkdir(parents=True, exist_ok=True)
    with open(TESTDATA / "corpus.bin", "wb") as file:
        for text in corpus:
            data = text.encode()
            file.write(struct.pack("<I", len(data)) + data)

    pipelines = {"qwen": qwen(texts), "olmoe": olmoe(texts), "mixtral": mixtral(texts),
                 "mixtral_metaspace": mixtral_metaspace(texts), "t5": t5(texts, TESTDATA)}
    for name, tokenizer in pipelines.items():
        folder = TESTDATA / name
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        write_ids(folder, [tokenizer.encode(text).ids for text in corpus])
    llama = llama_model(texts, TESTDATA / "llama_model")
    write_ids(TESTDATA / "llama_model", [llama.encode(text) for text in corpus])
    print(f"{len(corpus)} texts")


if __name__ == "__main__":
    main()
