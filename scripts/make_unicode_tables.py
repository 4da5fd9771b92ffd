#!/usr/bin/env python3
"""Writes tokenizer/unicode_tables.cc: where the Unicode of Hugging Face `tokenizers` is not the libraries'.

Its regular expressions know newer characters than PCRE2 10.42 (Unicode 14), its normal forms only those of
Unicode 9. Both are found by asking it about every character; Python's unicodedata, which must be of Unicode 14,
stands for the libraries.
"""

import pathlib
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "tokenizer" / "unicode_tables.cc"
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So").split()
CHARACTERS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def matching(pattern):
    pieces = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str("".join(CHARACTERS))
    rest = set("".join(piece for piece, _ in pieces))
    return [c for c in CHARACTERS if c not in rest]


def ranges(labelled):
    """Runs of (character, label) with one label: [first, last, label]."""
    runs = []
    for character, label in sorted(labelled):
        if runs and runs[-1][1] == ord(character) - 1 and runs[-1][2] == label:
            runs[-1][1] = ord(character)
        else:
            runs.append([ord(character), ord(character), label])
    return runs


def main():
    assert unicodedata.unidata_version.startswith("14."), unicodedata.unidata_version
    newer = [(c, category) for category in CATEGORIES for c in matching(rf"\p{{{category}}}")
             if unicodedata.category(c) == "Cn"]
    strip = normalizers.StripAccents()
    forms = [(normalizers.NFKD(), "NFKD"), (normalizers.NFKC(), "NFKC")]
    inert = {c for c in CHARACTERS if unicodedata.category(c)[0] == "M" and strip.normalize_str(c)}
    inert |= {c for c in CHARACTERS for reference, form in forms
              if reference.normalize_str(c) != unicodedata.normalize(form, c)}
    with open(OUTPUT, "w", encoding="ascii") as file:
        file.write("// Written by scripts/make_unicode_tables.py.\n\n#include \"tokenizer/unicode_tables.h\"\n\n"
                   "namespace moesaic {\nnamespace {\n\n// clang-format off\n"
                   "constexpr CategoryRange kNewer[] = {\n")
        for first, last, category in ranges(newer):
            file.write(f"    {{0x{first:X}, 0x{last:X}, {{'{category[0]}', '{category[1]}'}}}},\n")
        file.write("};\n\nconstexpr CodePointRange kInert[] = {\n")
        for first, last, _ in ranges((c, "") for c in inert):
            file.write(f"    {{0x{first:X}, 0x{last:X}}},\n")
        file.write("};\n// clang-format on\n\n}  // namespace\n\n"
                   "std::span<const CategoryRange> CategoriesSinceUnicode14() { return kNewer; }\n\n"
                   "std::span<const CodePointRange> WithoutNormalForms() { return kInert; }\n\n"
                   "}  // namespace moesaic\n")


if __name__ == "__main__":
    main()
