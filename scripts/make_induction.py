#!/usr/bin/env python3
"""Write experiments/induction/prompts.csv: repeated random tokens, as ids.

Out: 64 rows, each of 25 random token ids and the same again but for the last, which is the answer (`next`)
beside a random other id (`other`). The ids are from 1,000 to 49,151: SmolLM2's vocabulary without its special
tokens, bytes and commonest pieces. Only the standard library is used, and of `random` only random.random() with an integer
seed, which Python promises to keep: the bytes are the same at every run.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "experiments/induction/prompts.csv"
ROWS, LENGTH, LOW, HIGH, SEED = 64, 25, 1000, 49152, 1


def rows() -> list[list[str]]:
    rng = random.Random(SEED)
    made = []
    for _ in range(ROWS):
        ids: list[int] = []
        while len(ids) < LENGTH + 1:  # all different, so that each has one place
            i = LOW + int(rng.random() * (HIGH - LOW))
            if i not in ids:
                ids.append(i)
        once, other = ids[:LENGTH], ids[LENGTH]
        made.append([" ".join(map(str, once + once[:-1])), str(once[-1]), str(other)])
    return made


def text() -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([["tokens", "next", "other"], *rows()])
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    if not parser.parse_args().check:
        OUT.write_text(text(), encoding="utf-8")
    elif OUT.read_text(encoding="utf-8") != text():
        raise SystemExit(f"{OUT} is not what this script writes")


if __name__ == "__main__":
    main()
