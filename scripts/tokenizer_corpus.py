"""Texts that tokenizers get wrong: many scripts, normal forms, white space, long runs, special tokens.

Everything is made from a seed and the sentences below, which were written for this file.
"""

import random
import unicodedata

SENTENCES = {
    "english": [
        "The quick brown fox doesn't jump over 12 lazy dogs; it's asleep, isn't it?",
        "She'd have said they're late, but we've all been there: \"Don't!\" he'll reply.",
        "In 1987, roughly 3.14159% of all 2,048 samples (see Fig. 2b) were re-measured.",
        "HELLO World! I'M SHOUTING, YOU'RE NOT. O'Neill's cat—well, Naïve Café’s cat—ran.",
        "Mixture-of-experts models route each token to a few experts, e.g. 2 of 64.",
        "Visit https://example.org/path?q=1&r=%20x#frag or write to someone@example.com.",
    ],
    "code": [
        "def f(x, *args, **kw):\n    if x is None:\n\treturn [i ** 2 for i in range(10)]\n\n\n",
        "#include <vector>\nint main() {\r\n  std::vector<int> v{1, 2, 3};\r\n  return v[0] << 2;\r\n}\r\n",
        "SELECT a.b, COUNT(*) FROM `t` AS a WHERE x != 'it''s' AND y >= 1e-9 -- done\n",
        "let λ = (a, b) => ({...a, [b]: `${a}_${b}`}); // ünïcödé ident\n",
        "{\"key\": [1, 2.5e10, null, true], \"nested\": {\"a\\n\": \"\\u00e9\"}}\n",
        "<div class=\"x\"><p>a &amp; b</p><!-- c --></div>\n\n\n    \t  \n",
    ],
    "cjk": [
        "今天天气很好，我们一起去公园散步吧！他说：“没问题。”",
        "機械学習モデルは、ﾃｷｽﾄをトークンに分割します。「こんにちは」と言いました。",
        "오늘은 날씨가 좋아서 공원에 갔습니다. 한국어 문장도 잘 나눠야 합니다.",
        "《三國演義》第１２回：曹操煮酒論英雄。ＡＢＣ１２３！　全角空格。",
    ],
    "arabic": [
        "مرحبا بالعالم! هذا نص عربي قصير، فيه أرقام ١٢٣٤ وعلامات ترقيم؟",
        "بِسْمِ ٱللَّهِ ٱلرَّحْمَٰنِ ٱلرَّحِيمِ",
        "שלום עולם, זהו משפט בעברית עם נִקּוּד.",
        "فارسی می‌خواهم: نیم‌فاصله و گچپژ.",
    ],
    "other": [
        "Привет, мир! Ёжик съел 3 яблока — «вкусно», сказал он.",
        "Γειά σου Κόσμε· ΟΔΟΣ Σίσυφος, ώς.",
        "नमस्ते दुनिया, क्षत्रिय कार्य ज्ञान १२३।",
        "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง ๑๒๓",
        "Việt Nam: tiếng Việt có nhiều dấu thanh. İstanbul'da IĞDIR ışık. Straße ẞ ﬁne ﬂow ſtraſse",
        "ქართული ენა Հայերեն அகரம் ಕನ್ನಡ తెలుగు አማርኛ ខ្មែរ བོད་ཡིག",
    ],
    "emoji": [
        "👍🏽👩‍👩‍👧‍👦🏳️‍🌈👨🏿‍🚀🇩🇪🇯🇵1️⃣#️⃣☺️❤️‍🔥",
        "Nice 😀😃😄 work 🎉🎉 ok👌🏻 🤷‍♀️!! 🫠🫡",
    ],
    "symbols": [
        "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β = ¬(¬α ∨ β), ∑ᵢ xᵢ² ≤ √½ … ™ ℡ ㎏ Ⅷ ⑳ ²³¼",
        "e\u0301 vs é; A\u030A vs Å vs Å; o\u0302\u0323 vs o\u0323\u0302 vs ộ; \u1100\u1161\u11a8 vs 각",
        "Z̸̧̢͍̘̗̜̓̓̐͑̾̕a̵̢͚͔͛͌͝l̶̛̰͎͗̎̀͠g̴̣̈́ȏ̷͚̏",
        "‘single’ “double” ‹x› „y” –—―… ‚ ′ ″ ¿¡ § ¶ † ‡ • ·",
    ],
}

SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2009\u200a\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\u180e\ufeff"

SCRIPT_RANGES = [
    (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA),
    (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
    (0x2000, 0x206F), (0x20A0, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE00, 0xFFEF), (0x10300, 0x1034A), (0x1D400, 0x1D7FF),
    (0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0xE0100, 0xE01EF),
]


def assigned(code_point):
    """Old enough for every library's Unicode tables; new characters are looked at elsewhere."""
    return unicodedata.ucd_3_2_0.category(chr(code_point)) not in ("Cn", "Cs", "Co")


def random_character(rng):
    while True:
        low, high = rng.choice(SCRIPT_RANGES)
        code_point = rng.randint(low, high)
        if assigned(code_point):
            return chr(code_point)


def random_unicode(rng, length):
    return "".join(random_character(rng) for _ in range(length))


def script_words(rng, length):
    """Words within one script at a time, spaces of all kinds between."""
    parts = []
    while length > 0:
        low, high = rng.choice(SCRIPT_RANGES)
        word = [chr(c) for c in (rng.randint(low, high) for _ in range(rng.randint(1, 8))) if assigned(c)]
        parts.append("".join(word) + rng.choice([" ", " ", " ", "", "  ", rng.choice(SPACES)]))
        length -= len(word) + 1
    return "".join(parts)


def long_run(rng, length):
    unit = rng.choice(["a", "A", " ", "\n", "\t", "=", "-", "1", "é", "字", "👍", "\u0301", "ab", "\r\n",
                       "\u3000", "<", "▁", "ا", " a", "!", "\u00ad", "\u200d"])
    return unit * (length // len(unit))


def combining_marks(rng, length):
    marks = [c for c in range(0x300, 0x370) if assigned(c)] + [0x591, 0x5B0, 0x64B, 0x651, 0x93C, 0x1AB0]
    return "".join(rng.choice("aeioußÅ각") if rng.random() < 0.3 else chr(rng.choice(marks))
                   for _ in range(length))


def white_space(rng, length):
    return "".join(rng.choice(SPACES) if rng.random() < 0.8 else rng.choice("ab1.") for _ in range(length))


def with_special_tokens(rng, special_tokens):
    parts = []
    for _ in range(rng.randint(2, 6)):
        parts.append(rng.choice(special_tokens))
        parts.append(rng.choice(["", " ", "  ", "\n", "x", " text ", "é", "<", "|>", "\u3000"]))
        if rng.random() < 0.2:
            parts.append(rng.choice(special_tokens)[:-1])
    rng.shuffle(parts)
    return "".join(parts)


def make_chunks(seed, total_bytes, special_tokens=(), english=()):
    """Texts of about `total_bytes` bytes of UTF-8 in all; `english`: lines of prose to mix in."""
    rng = random.Random(seed)
    sentences = [s for group in SENTENCES.values() for s in group]
    chunks = ["", " ", "  ", "\n", "\0", "a\0b", "a", "é", "▁", "▁▁a", " a", "a ", "\ufeffx", "\ufffd"]
    chunks += sentences + ["<0x41>", "<unk>", "<s> </s>", "▁the ▁ <0x0A>"]
    chunks += list(special_tokens)
    size = sum(len(c.encode()) for c in chunks)
    while size < total_bytes:
        kind = rng.random()
        length = int(rng.choice([10, 40, 200, 1000]) * rng.uniform(0.5, 1.5))
        if kind < 0.35 and english:
            start = rng.randrange(len(english))
            chunk = "".join(english[start:start + rng.randint(1, 8)])
        elif kind < 0.55:
            chunk = rng.choice(["", " ", "\n"]).join(rng.choice(sentences) for _ in range(rng.randint(1, 12)))
        elif kind < 0.65:
            chunk = random_unicode(rng, length)
        elif kind < 0.75:
            chunk = script_words(rng, length)
        elif kind < 0.80:
            chunk = combining_marks(rng, length)
        elif kind < 0.86:
            chunk = white_space(rng, length)
        elif kind < 0.94 or not special_tokens:
            chunk = rng.choice(["", "x", " "]) + long_run(rng, length * rng.choice([1, 1, 4])) + rng.choice(["", "x"])
        else:
            chunk = with_special_tokens(rng, special_tokens)
        chunks.append(chunk)
        size += len(chunk.encode())
    return chunks
