#!/usr/bin/env python3
"""Write experiments/ioi.csv, ioi-pairs.csv, ioi_classic.csv, smollm2-patching/prompts.csv.

In: scripts/ioi_lists.json (names, places, objects, templates, and their split).
Out: four CSV files of indirect-object prompts. ioi.csv takes only the test
split: every test pair of names once, every test template equally often.
Rows 2k and 2k+1 are one pair. They differ in the acting name alone, so the
answers swap and the token positions stay the same; one row is BABA and the
other ABBA. ioi-pairs.csv has the first of them with a column `corrupted`: the
partner's prompt, in which the other name acts. Every name is one token, so both
have as many. ioi_classic.csv has the eight prompts of the exploratory analysis
demo of TransformerLens. smollm2-patching/prompts.csv has pairs as ioi-pairs.csv, of
one template and words that are single tokens for SmolLM2: all of one length.

Only the standard library is used. The bytes are the same at every run:
random.random() with an integer seed is the one part of `random` that Python
promises to keep, so nothing else of that module is used.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
LISTS = SCRIPTS / "ioi_lists.json"
COLUMNS = ["prompt", "correct", "incorrect", "template", "order", "pair", "subject",
           "indirect_object", "place", "object", "words"]
PAIR_COLUMNS = [COLUMNS[0], "corrupted", *COLUMNS[1:]]
PAIR_ROWS = 480  # each of 24 templates in both orders, ten times
# index of the test template, name A, name B, place, object, in the demo's order
CLASSIC = [(0, "John", "Mary", "shops", "bag"), (0, "Tom", "James", "park", "ball"),
           (1, "Dan", "Sid", "shops", "apple"), (2, "Martin", "Amy", "park", "drink")]
# Pairs of the test split, places and objects of which each word is one SmolLM2 token.
SMOLLM2_NAMES = """Edith-Vera Carol-Felix Anna-Helen Alice-Ruth Diana-Nina Luke-Oscar Amy-Paul Martha-Martin
Hugo-Molly Dennis-Eva Frank-Keith Kevin-Maria Ian-Sally Dan-George Laura-Robert Alex-Joan David-Peter Ella-Nancy
Arthur-Julia Jane-Matthew Chris-Harry Ivan-Susan Gary-Isabel Alan-Emma Oliver-Steven"""
SMOLLM2_PLACES = "park shops school library museum market office station beach garden".split()
SMOLLM2_OBJECTS = "bag ball apple drink hat umbrella banana".split()


def load_lists(path: Path = LISTS) -> dict:
    """The committed lists, as they are in the file."""
    return json.loads(path.read_text(encoding="utf-8"))


def pair_list(pairs: dict[str, str]) -> list[tuple[str, str]]:
    """{"Adam": "Beth Carl"} -> [("Adam", "Beth"), ("Adam", "Carl")]."""
    return [(a, b) for a, others in pairs.items() for b in others.split()]


def pick(rng: random.Random, items):
    """One of a sequence, by random() alone."""
    return items[int(rng.random() * len(items))]


def shuffled(rng: random.Random, items: list) -> list:
    """A shuffled copy, by random() alone (Fisher and Yates)."""
    out = list(items)
    for i in range(len(out) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        out[i], out[j] = out[j], out[i]
    return out


def with_article(noun: str) -> str:
    """'apple' -> 'an apple', 'bag' -> 'a bag'. No listed object is an exception."""
    if noun.endswith("scissors"):
        return "a " + noun
    return ("an " if noun[:1] in tuple("aeiou") else "a ") + noun


def fill(template: str, a: str, b: str, s: str, place: str, obj: str) -> str:
    """A template with its slots filled: A and B in order of mention, S acts."""
    return (template.replace("{A}", a).replace("{B}", b).replace("{S}", s)
            .replace("{place}", place).replace("{object}", obj)
            .replace("{an object}", with_article(obj)))


def two_rows(lists: dict, pair: int, tmpl: int, a: str, b: str, place: str,
             obj: str) -> list[dict]:
    """The two rows of a pair: first A acts (BABA), then B acts (ABBA)."""
    template = lists["templates"]["test"][tmpl]
    rows = []
    for subject, other, order in ((a, b, "BABA"), (b, a, "ABBA")):
        prompt = fill(template, a, b, subject, place, obj)
        rows.append({"prompt": prompt, "correct": " " + other, "incorrect": " " + subject,
                     "template": f"t{tmpl + 1:02d}", "order": order, "pair": pair,
                     "subject": subject, "indirect_object": other,
                     "place": place if "{place}" in template else "", "object": obj,
                     "words": len(prompt.split())})
    return rows


def ioi_rows(lists: dict, seed: int) -> list[dict]:
    """All rows of ioi.csv."""
    rng = random.Random(seed)
    pairs = shuffled(rng, pair_list(lists["name_pairs"]["test"]))
    count = len(lists["templates"]["test"])
    rows: list[dict] = []
    for k, (a, b) in enumerate(pairs):
        if rng.random() < 0.5:
            a, b = b, a
        place = pick(rng, lists["places"])
        obj = pick(rng, lists["objects"]["test"])
        # 7 has no factor in common with 24: every 24 pairs use every template
        rows += two_rows(lists, k, 7 * k % count, a, b, place, obj)
    return rows


def classic_rows(lists: dict) -> list[dict]:
    """The eight prompts of the demo; there only the first pair begins with BABA."""
    rows: list[dict] = []
    for k, (tmpl, a, b, place, obj) in enumerate(CLASSIC):
        rows += two_rows(lists, k, tmpl, a, b, place, obj)[:: 1 if k == 0 else -1]
    return rows


def smollm2_rows(lists: dict) -> list[dict]:
    """Every pair in both orders, of the first template."""
    rows: list[dict] = []
    for k, pair in enumerate(SMOLLM2_NAMES.split()):
        place, obj = (words[k % len(words)] for words in (SMOLLM2_PLACES, SMOLLM2_OBJECTS))
        rows += two_rows(lists, k, 0, *pair.split("-"), place, obj)
    return rows


def corrupted_rows(rows: list[dict]) -> list[dict]:
    """Rows 2k and 2k+1, each with the other's prompt as its corrupted one."""
    return [{**row, "corrupted": rows[i ^ 1]["prompt"]} for i, row in enumerate(rows)]


def to_csv(rows: list[dict], columns: list[str]) -> bytes:
    """Rows as CSV: UTF-8, LF, quotes only where they are needed."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SCRIPTS.parent / "experiments",
                        help="directory of the files (default: experiments)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    lists = load_lists()
    ioi = ioi_rows(lists, args.seed)
    for name, rows, columns in (("ioi.csv", ioi, COLUMNS),
                                ("ioi-pairs.csv", corrupted_rows(ioi[:PAIR_ROWS]), PAIR_COLUMNS),
                                ("ioi_classic.csv", classic_rows(lists), COLUMNS),
                                ("smollm2-patching/prompts.csv", corrupted_rows(smollm2_rows(lists)), PAIR_COLUMNS)):
        (args.out / name).parent.mkdir(parents=True, exist_ok=True)
        (args.out / name).write_bytes(to_csv(rows, columns))
        print(f"{args.out / name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
