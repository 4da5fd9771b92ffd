#!/usr/bin/env python3
"""Holds the layer table of docs/architecture.md: a folder includes only what its row lists.

Fails, naming file and line, on any other #include of ours or of a third party. Standard and system headers are free.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Folder: (our folders it may include besides itself, third parties).
LAYERS = {
    "base": ((), ("spdlog", "prometheus")),
    "proto": ((), ("protobuf",)),
    "core": (("base",), ()),
    "checkpoint": (("base",), ("nlohmann",)),
    "kernels": (("base",), ("cuda", "cutlass", "flashinfer")),
    "tokenizer": (("base", "core", "checkpoint"), ("pcre2", "utf8proc")),
    "memory": (("base", "core", "checkpoint"), ("cuda", "liburing", "xxhash")),
    "router": (("base", "core", "checkpoint", "kernels"), ("highs",)),
    "batcher": (("base", "core", "memory"), ()),
    "model": (("base", "core", "checkpoint", "memory", "kernels"), ()),
    "engine": (("base", "core", "memory", "router", "batcher", "model"), ()),
    # Clients' JSON goes through the bounded reader of checkpoint/ (docs/adr/0005-json-at-the-edge.md).
    "server": (("base", "core", "proto", "checkpoint", "tokenizer", "engine"), ("grpc", "protobuf", "boost", "cli11")),
    "tools": (("base", "core", "proto", "checkpoint", "kernels", "tokenizer", "memory", "router", "batcher", "model"),
              ("grpc", "protobuf", "cli11", "highs")),
    "tests": (None, None),
    "benchmarks": (None, None),
}
# Status and strings are Abseil's everywhere.
EVERYWHERE = {"absl"}

THIRD_PARTY = {
    r"absl/": "absl", r"(spdlog|fmt)/": "spdlog", r"prometheus/": "prometheus", r"nlohmann/": "nlohmann",
    r"(grpc|grpcpp)/": "grpc", r"google/protobuf/": "protobuf", r"boost/": "boost", r"CLI/": "cli11",
    r"pcre2": "pcre2", r"liburing": "liburing", r"xxh": "xxhash",
    r"cu(da|blas|rand)": "cuda", r"cutlass/": "cutlass", r"flashinfer/": "flashinfer", r"interfaces/highs": "highs",
    r"(gtest|gmock)/": "gtest", r"benchmark/": "benchmark", r"(torch|ATen|c10)/": "torch",
    r"utf8proc": "utf8proc",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def third_party(path: str) -> str | None:
    return next((name for pattern, name in THIRD_PARTY.items() if re.match(pattern, path)), None)


def check(file: pathlib.Path) -> list[str]:
    folder = file.parts[0]
    ours, theirs = LAYERS[folder]
    errors = []
    for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, path = match.groups()
        target = path.split("/")[0]
        if path.startswith("../"):
            errors.append(f"{file}:{number}: include paths start at the repository's root, not '../'")
        elif quote == '"' and target in LAYERS:
            if ours is not None and target != folder and target not in ours:
                errors.append(f"{file}:{number}: {folder}/ may not include {target}/ ({path})")
        else:
            name = third_party(path)
            if name is None and (quote == '"' or "/" in path) and not path.startswith(("sys/", "netinet/", "linux/",
                                                                                       "arpa/")):
                errors.append(f"{file}:{number}: unknown include {path}")
            elif name is not None and theirs is not None and name not in EVERYWHERE | set(theirs):
                errors.append(f"{file}:{number}: {folder}/ may not include {name} ({path})")
    return errors


def main() -> int:
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files", "*.h", "*.cc", "*.cu", "*.cuh"], check=True,
                           capture_output=True, text=True).stdout.split()
    files = [pathlib.Path(name) for name in names]
    strangers = [str(file) for file in files if file.parts[0] not in LAYERS]
    errors = [f"{name}: its folder is not in the layer table" for name in strangers]
    for file in files:
        if str(file) not in strangers and (ROOT / file).exists():
            errors += check(file)
    print("\n".join(errors) if errors else f"layers: {len(files)} files keep to the table")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
