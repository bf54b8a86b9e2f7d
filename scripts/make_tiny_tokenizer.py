#!/usr/bin/env python3
"""Writes the tiny byte-level BPE tokenizer that the unit tests use.

It has the 256 byte symbols and a handful of merges, so that " Mary" and "Mary"
are one token each and "Maryland" is not, and GPT-2's end-of-text token as BOS.
Usage: scripts/make_tiny_tokenizer.py tests/unit/data/tok_tiny
"""

import argparse
import json
from pathlib import Path

WORDS = ["ĠMary", "ĠJohn", "Mary", "John", "Ġthe", "ĠParis", "ĠTom", "Ġ."]
BOS = "<|endoftext|>"


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols, spare = [], 0
    for byte in range(256):
        if byte in shown:
            symbols.append(chr(byte))
        else:
            symbols.append(chr(256 + spare))
            spare += 1
    return symbols


def merges(words: list[str]) -> list[tuple[str, str]]:
    """Left-to-right merges that build each word, without repetitions."""
    found: list[tuple[str, str]] = []
    for word in words:
        for i in range(1, len(word)):
            pair = (word[:i], word[i])
            if pair not in found:
                found.append(pair)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    pairs = merges(WORDS)
    vocab = {s: i for i, s in enumerate([*byte_symbols(), *(a + b for a, b in pairs)])}
    special = {
        "id": len(vocab),
        "content": BOS,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {**vocab, BOS: len(vocab)},
            "merges": [f"{a} {b}" for a, b in pairs],
        },
    }
    config = {"bos_token": BOS, "eos_token": BOS, "tokenizer_class": "GPT2Tokenizer"}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        text = json.dumps(data, ensure_ascii=False, indent=1)
        (folder / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
