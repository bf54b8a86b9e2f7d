"""Compare our ids and texts with Hugging Face's on generated strings.

Needs the `tokenizers` package and the test driver (tests/fuzz/tokens_driver).
Prints the first differences and exits 1 if there are any.

    python scripts/check_tokenizer.py --driver build/tests/fuzz/tokens_driver DIR
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Iterable
from itertools import accumulate, islice
from pathlib import Path
from unicodedata import combining, normalize

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tokenizer_strings import EDGES, METASPACE, code_point_strings, mixes

BATCH = 100_000


def reference(directory: Path) -> Tokenizer:
    """Hugging Face's tokenizer for the same directory."""
    if (directory / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    else:
        tokenizer = Tokenizer(BPE.from_file(str(directory / "vocab.json"),
                                            str(directory / "merges.txt")))
        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        tokenizer.decoder = ByteLevelDecoder()
        if tokenizer.token_to_id("<|endoftext|>") is not None:
            tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def run(driver: Path, mode: str, directory: Path, records: list[str]) -> list[str]:
    """The driver's answer lines to the records."""
    done = subprocess.run([str(driver), mode, str(directory)],
                          input="".join(r + "\0" for r in records).encode(),
                          capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"driver failed: {done.stderr.decode()}")
    return done.stdout.decode().split("\n")[:-1]


def check_encode(driver: Path, directory: Path, hf: Tokenizer, texts: Iterable[str]) -> int:
    """Number of texts with other ids than Hugging Face's; shows the first few.

    A text with a byte or character that has no token is an error with us; Hugging
    Face drops it and says nothing.
    """
    texts, bad, refused, total = iter(texts), 0, 0, 0
    while batch := list(islice(texts, BATCH)):
        records = [t.replace("\\", "\\\\").replace("\0", "\\0") for t in batch]
        got = run(driver, "encode", directory, records)
        assert len(got) == len(batch)
        for text, line, want in zip(batch, got,
                                    hf.encode_batch(batch, add_special_tokens=False)):
            if line.startswith("error: the tokenizer has no token for"):
                refused += 1
            elif line != " ".join(map(str, want.ids)):
                bad += 1
                if bad <= 5:
                    print(f"{text!r}: got [{line}], want {want.ids}")
        total += len(batch)
    print(f"encode: {total} strings, {bad} differ"
          + (f", {refused} refused (no token)" if refused else ""), flush=True)
    return bad


def last_tokens(offsets: list[tuple[int, int]], n: int) -> list[int]:
    """Of each character the last token whose offsets hold it, or -1."""
    last = [-1] * n
    for token, (start, end) in enumerate(offsets):
        last[start:end] = [token] * (end - start)
    return last


def overtaken(tokens: list[str]) -> bool:
    """Bytes overtake an unknown token, but their offsets stay in the text's order."""
    return any(t.startswith("<0x") for t in tokens) and "<unk>" in tokens


def is_mark(c: str) -> bool:
    """Can normalisation sort it among its neighbours, or compose it with the one before?"""
    return combining(normalize("NFD", c)[0]) != 0


def check_places(driver: Path, directory: Path, hf: Tokenizer, texts: Iterable[str]) -> int:
    """Number of texts one of whose characters ends in another token than by offset_mapping.

    Where the offsets cannot tell, nothing is compared: a character that was composed
    with the one before it (they leave it out), marks, which normalisation sorts and
    composes, and the character before one (they do not follow), and texts in which
    bytes overtook an unknown token.
    """
    texts, bad, left_out, total = iter(texts), 0, 0, 0
    while batch := list(islice(texts, BATCH)):
        records = [t.replace("\\", "\\\\").replace("\0", "\\0") for t in batch]
        got = run(driver, "places", directory, records)
        for text, line, want in zip(batch, got,
                                    hf.encode_batch(batch, add_special_tokens=False)):
            if line.startswith("error: ") or overtaken(want.tokens):
                left_out += 1
                continue
            ends = accumulate(len(c.encode()) for c in text)
            place = [int(p) for p in line.split()]
            mine, theirs = [place[e - 1] for e in ends], last_tokens(want.offsets, len(text))
            mine = [t if t < 0 or is_mark(c) or is_mark(after) else m
                    for c, after, m, t in zip(text, text[1:] + " ", mine, theirs)]
            if mine != theirs:
                bad += 1
                if bad <= 5:
                    print(f"{text!r}: got {mine}, want {theirs}: {want.tokens}")
        total += len(batch)
    print(f"places: {total} strings, {bad} differ"
          + (f", {left_out} not compared" if left_out else ""), flush=True)
    return bad


def check_decode(driver: Path, directory: Path, hf: Tokenizer, n: int, seed: int) -> int:
    """The same for random id sequences, some ids without a token among them."""
    rng = random.Random(seed)
    size = hf.get_vocab_size()
    ids = [[rng.randrange(size + 3) if rng.random() < 0.5 else rng.randrange(min(size, 256))
            for _ in range(rng.randint(0, 12))] for _ in range(n)]
    got = run(driver, "decode", directory, [" ".join(map(str, i)) for i in ids])
    bad = 0
    for i, line in zip(ids, got):
        want = hf.decode(i, skip_special_tokens=False)
        if bytes.fromhex(line).decode() != want:
            bad += 1
            if bad <= 5:
                print(f"{i}: got {bytes.fromhex(line)!r}, want {want!r}")
    print(f"decode: {n} sequences, {bad} differ")
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("directory", type=Path, nargs="+")
    parser.add_argument("--driver", type=Path, required=True)
    parser.add_argument("--mixes", type=int, default=30_000, help="random mixtures")
    parser.add_argument("--decodes", type=int, default=20_000, help="random id sequences")
    parser.add_argument("--code-points", action=argparse.BooleanOptionalAction, default=True,
                        help="every assigned code point in four surroundings")
    parser.add_argument("--places", action="store_true",
                        help="also which token each character ends in, by offset_mapping")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    bad = 0
    for directory in args.directory:
        print(directory)
        hf = reference(directory)
        specials = METASPACE + tuple(t.content for t in hf.get_added_tokens_decoder().values())
        bad += check_encode(args.driver, directory, hf, EDGES)
        bad += check_encode(args.driver, directory, hf, mixes(args.mixes, args.seed, specials))
        if args.places:
            bad += check_places(args.driver, directory, hf, EDGES)
            bad += check_places(args.driver, directory, hf, mixes(args.mixes, args.seed, specials))
            if args.code_points:
                bad += check_places(args.driver, directory, hf, code_point_strings())
        if args.code_points:
            bad += check_encode(args.driver, directory, hf, code_point_strings())
        bad += check_decode(args.driver, directory, hf, args.decodes, args.seed)
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
