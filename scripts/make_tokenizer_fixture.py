"""Make tests/unit/data/tokenizer: small tokenizers and what Hugging Face gives.

Trains a byte-level BPE of a few hundred merges on generated text and writes it
in three forms:

- gpt2/: tokenizer.json of GPT-2's kind, BOS in tokenizer_config.json;
- files/: the same model as vocab.json + merges.txt, BOS in special_tokens_map.json;
- llama/: NFC, Llama-3's pattern with single digits, ignore_merges, merges as
  pairs, added tokens with all flags, BOS in config.json.

The expectations are kept as 32-bit FNV-1a digests of the ids (as 32-bit
little-endian numbers): strings.txt has one line for each string (digest of
gpt2, digest of llama, the text with \\\\, \\n, \\r and \\0 escaped);
code_points.txt the ranges of assigned code points; code_point_digests.txt one
line for each run of RUN of them; decode_digests.txt digests of decoded random
ids. The unit test makes the same runs and the same random ids.

    python scripts/make_tokenizer_fixture.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from tokenizer_strings import WORDS, assigned_code_points, code_point_runs, mixes

RUN = 512          # code points in a run; the unit test has the same number
DECODES = 64       # digests of decoded ids, DECODE_IDS ids each
DECODE_IDS = 400
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
           r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def fnv(data: bytes) -> str:
    """FNV-1a, 32 bits, as 8 hexadecimal digits."""
    h = 2166136261
    for b in data:
        h = (h ^ b) * 16777619 & 0xFFFFFFFF
    return f"{h:08x}"


def digest(ids: Iterable[int]) -> str:
    return fnv(b"".join(i.to_bytes(4, "little") for i in ids))


def escape(text: str) -> str:
    return (text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
            .replace("\0", "\\0"))


def random_ids(seed: int, n: int, below: int) -> list[int]:
    """The unit test's generator: the upper half of a 64-bit LCG."""
    state, out = seed, []
    for _ in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        out.append((state >> 32) % below)
    return out


def train(n_tokens: int) -> Tokenizer:
    corpus = list(mixes(6000, seed=7)) + [" ".join(WORDS[i:i + 12]) for i in range(len(WORDS))] * 8
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, BpeTrainer(
        vocab_size=n_tokens, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"], show_progress=False))
    return tokenizer


def llama_like(base: Tokenizer) -> Tokenizer:
    spec = json.loads(base.to_str())["model"]
    tokenizer = Tokenizer(models.BPE(vocab=spec["vocab"],
                                     merges=[tuple(m) for m in spec["merges"]],
                                     ignore_merges=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.add_tokens([
        AddedToken("<l>", lstrip=True, normalized=False),
        AddedToken("<r>", rstrip=True, normalized=False),
        AddedToken("<lr> ", lstrip=True, rstrip=True, normalized=True),
        AddedToken("work", single_word=True, normalized=True),
        AddedToken("work place", normalized=False),
        AddedToken("e\u0301", normalized=True),
        AddedToken("a\u0307\u0323", normalized=False),
        AddedToken("    ", normalized=True)])
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path, string_merges: bool) -> dict:
    """Write tokenizer.json; returns its model."""
    spec = json.loads(tokenizer.to_str())
    if string_merges:
        spec["model"]["merges"] = [" ".join(m) for m in spec["model"]["merges"]]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(
        json.dumps(spec, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    return spec["model"]


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


def ranges(points: list[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for i in range(1, len(points) + 1):
        if i == len(points) or points[i] != points[i - 1] + 1:
            yield points[start], points[i - 1]
            start = i


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("tests/unit/data/tokenizer"))
    parser.add_argument("--tokens", type=int, default=600)
    parser.add_argument("--strings", type=int, default=2000)
    args = parser.parse_args()

    gpt2 = train(args.tokens)
    llama = llama_like(gpt2)
    model = save(gpt2, args.out / "gpt2", string_merges=True)
    write_json(args.out / "gpt2" / "tokenizer_config.json",
               {"bos_token": {"content": "<|endoftext|>"}, "add_prefix_space": False})
    write_json(args.out / "files" / "vocab.json", model["vocab"])
    write_lines(args.out / "files" / "merges.txt", ["#version: 0.2", *model["merges"]])
    write_json(args.out / "files" / "special_tokens_map.json", {"bos_token": "<|endoftext|>"})
    save(llama, args.out / "llama", string_merges=False)
    write_json(args.out / "llama" / "config.json", {"bos_token_id": 0})

    def ids(tokenizer: Tokenizer, text: str) -> str:
        return digest(tokenizer.encode(text, add_special_tokens=False).ids)

    specials = ("<|endoftext|>", " <l>", "<l> ", " <r> ", "<r>", "  <lr>  ", "<lr> ", "work",
                "work place", "workplace", "\u00e9", "e\u0301", "a\u0307\u0323", "\u1ea1\u0307")
    write_lines(args.out / "strings.txt",
                (f"{ids(gpt2, s)} {ids(llama, s)} {escape(s)}"
                 for s in mixes(args.strings, 1, specials, max_parts=7)))
    write_lines(args.out / "code_points.txt",
                (f"{a:x} {b:x}" for a, b in ranges(assigned_code_points())))
    write_lines(args.out / "code_point_digests.txt",
                (f"{ids(gpt2, s)} {ids(llama, s)}" for s in code_point_runs(RUN)))
    n = llama.get_vocab_size() + 2  # two ids without a token
    write_lines(args.out / "decode_digests.txt",
                (fnv(llama.decode(random_ids(i, DECODE_IDS, n),
                                  skip_special_tokens=False).encode())
                 for i in range(DECODES)))


if __name__ == "__main__":
    main()
