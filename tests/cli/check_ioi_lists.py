#!/usr/bin/env python3
"""Check the split of the IOI lists, and the three CSV files made from them.

Run from anywhere: python3 tests/cli/check_ioi_lists.py. Needs the standard
library only. Prints each failure and a last line "N passed, N failed"; the
exit status is 1 if anything failed. The files can be named, so that the check
itself can be tried on broken ones.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLOTS = ("A", "B", "S", "place", "object", "an object")


class Files:
    """What the checks look at: the lists and the rows of the files."""

    def __init__(self, lists: Path, directory: Path) -> None:
        self.directory = directory
        self.lists = json.loads(lists.read_text(encoding="utf-8"))
        self.names = self.lists["names"]["female"] + self.lists["names"]["male"]
        self.train, self.test = (
            [frozenset((a, b)) for a, others in self.lists["name_pairs"][k].items()
             for b in others.split()] for k in ("train", "test"))
        self.rows = read(directory / "ioi.csv")
        self.pairs = read(directory / "ioi-pairs.csv")
        self.classic = read(directory / "ioi_classic.csv")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def template_pattern(template: str) -> re.Pattern[str]:
    """A template as a pattern with one group for each slot."""
    text = re.escape(template)
    for slot in SLOTS:
        group = slot.replace(" ", "_")
        text = text.replace(re.escape("{" + slot + "}"), f"(?P<{group}>[A-Za-z ]+?)")
    return re.compile(text)


def places_and_names(f: Files) -> Iterator[str]:
    """At least 100 names and no name twice."""
    if len(f.names) < 100:
        yield f"only {len(f.names)} names"
    if len(set(f.names)) != len(f.names):
        yield "a name is listed twice"
    if len(set(f.lists["places"])) != len(f.lists["places"]):
        yield "a place is listed twice"


def pairs_disjoint(f: Files) -> Iterator[str]:
    """Each unordered pair of names is in one split, once."""
    for pair in set(f.train) & set(f.test):
        yield f"pair in both splits: {sorted(pair)}"
    both = f.train + f.test
    if len(set(both)) != len(both):
        yield "a pair is listed twice"
    if set(both) != {frozenset(p) for p in combinations(f.names, 2)}:
        yield "the two splits are not all pairs of the names"


def objects_disjoint(f: Files) -> Iterator[str]:
    """No object in both splits, and no word of one in the other."""
    train, test = f.lists["objects"]["train"], f.lists["objects"]["test"]
    words = [{w for o in part for w in o.split()} - {"of", "the"} for part in (train, test)]
    for word in words[0] & words[1]:
        yield f"object word in both splits: {word}"
    if len(set(train)) != len(train) or len(set(test)) != len(test):
        yield "an object is listed twice"


def templates_disjoint(f: Files) -> Iterator[str]:
    """No training clause inside a test template."""
    train, test = f.lists["templates"]["train"], f.lists["templates"]["test"]
    if len(set(test)) != len(test):
        yield "a test template is listed twice"
    for kind in ("openings", "middles", "endings"):
        if len(set(train[kind])) != len(train[kind]):
            yield f"one of the {kind} is listed twice"
        for clause in train[kind]:
            for template in test:
                if clause.lower() in template.lower():
                    yield f"training clause {clause!r} in test template {template!r}"


def templates_formed(f: Files) -> Iterator[str]:
    """Every template names A, then B, then lets S act, and ends before the answer."""
    train = f.lists["templates"]["train"]
    joined = [o + " " + train["endings"][0] for o in train["openings"]]
    joined += [train["openings"][0] + " " + e for e in train["endings"]]
    for t in f.lists["templates"]["test"] + joined:
        counts = [t.count("{" + s + "}") for s in "ABS"]
        if counts != [1, 1, 1] or not t.index("{A}") < t.index("{B}") < t.index("{S}"):
            yield f"slots out of order: {t!r}"
        if not t.endswith(" to"):
            yield f"does not end in ' to': {t!r}"


def enough_rows(f: Files) -> Iterator[str]:
    """At least 1,000 rows, no prompt twice, both orders, all templates, mixed lengths."""
    if len(f.rows) < 1000:
        yield f"only {len(f.rows)} rows"
    if len({r["prompt"] for r in f.rows}) != len(f.rows):
        yield "a prompt occurs twice"
    orders = [sum(r["order"] == o for r in f.rows) for o in ("ABBA", "BABA")]
    if orders[0] != orders[1] or sum(orders) != len(f.rows):
        yield f"orders ABBA, BABA: {orders} of {len(f.rows)}"
    if len({r["template"] for r in f.rows}) != len(f.lists["templates"]["test"]):
        yield "not every test template is used"
    words = {len(r["prompt"].split()) for r in f.rows}
    if len(words) < 10 or max(words) < 3 * min(words):
        yield f"lengths are not mixed: {sorted(words)}"


def test_split_only(f: Files) -> Iterator[str]:
    """Every row is a test template with a test pair and a test object, and says so."""
    for n, row in enumerate(f.rows + f.classic):
        number = row["template"][1:]
        templates = f.lists["templates"]["test"]
        if not number.isdigit() or not 1 <= int(number) <= len(templates):
            yield f"row {n}: no such template: {row['template']}"
            continue
        match = template_pattern(templates[int(number) - 1]).fullmatch(row["prompt"])
        if match is None:
            yield f"row {n}: not template {row['template']}: {row['prompt']!r}"
            continue
        yield from row_slots(f, n, row, match.groupdict())


def row_slots(f: Files, n: int, row: dict[str, str], slots: dict[str, str]) -> Iterator[str]:
    """The slots of one prompt against its columns and the test split."""
    thing = slots.get("object") or re.sub("^an? ", "", slots.get("an_object", ""))
    subject, other = row["subject"], row["indirect_object"]
    first, second = (other, subject) if row["order"] == "ABBA" else (subject, other)
    if frozenset((subject, other)) not in set(f.test):
        yield f"row {n}: not a test pair: {subject}, {other}"
    if (slots["A"], slots["B"], slots["S"]) != (first, second, subject):
        yield f"row {n}: names or order do not fit the prompt"
    if (row["correct"], row["incorrect"]) != (" " + other, " " + subject):
        yield f"row {n}: answers do not fit the names"
    if thing not in f.lists["objects"]["test"] or row["object"] != thing:
        yield f"row {n}: not a test object: {thing!r}"
    if slots.get("place", "") != row["place"] or (
            row["place"] and row["place"] not in f.lists["places"]):
        yield f"row {n}: not the place: {row['place']!r}"
    if row["words"] != str(len(row["prompt"].split())):
        yield f"row {n}: not the count of words: {row['words']}"


def proper_swaps(f: Files) -> Iterator[str]:
    """Rows 2k and 2k+1: one pair, one word apart, answers exchanged, both orders."""
    for rows in (f.rows, f.classic):
        if len(rows) % 2:
            yield "a row without a partner"
        for k, (a, b) in enumerate(zip(rows[::2], rows[1::2])):
            same = ("template", "pair", "place", "object", "words")
            if any(a[c] != b[c] for c in same) or a["pair"] != str(k):
                yield f"pair {k}: its rows differ in more than the names"
            if (a["correct"], a["incorrect"]) != (b["incorrect"], b["correct"]):
                yield f"pair {k}: the answers are not swapped"
            if {a["order"], b["order"]} != {"ABBA", "BABA"}:
                yield f"pair {k}: not one ABBA and one BABA"
            words = zip(a["prompt"].split(), b["prompt"].split())
            apart = [(x, y) for x, y in words if x != y]
            if apart != [(a["subject"], b["subject"])]:
                yield f"pair {k}: the prompts differ in {apart}"


def corrupted_prompts(f: Files) -> Iterator[str]:
    """ioi-pairs.csv: rows of ioi.csv, and the prompt in which the other name acts."""
    if not 200 <= len(f.pairs) <= 1000:
        yield f"{len(f.pairs)} pairs"
    uses = Counter((r["template"], r["order"]) for r in f.pairs)
    if len(uses) != 2 * len(f.lists["templates"]["test"]) or len(set(uses.values())) != 1:
        yield "not every template in both orders equally often"
    for n, (pair, row) in enumerate(zip(f.pairs, f.rows)):
        corrupted = pair.pop("corrupted", "")
        if pair != row:
            yield f"pair {n}: not row {n} of ioi.csv"
        names = pair["subject"], pair["indirect_object"]
        head, _, tail = pair["prompt"].rpartition(names[0])
        if corrupted != head + names[1] + tail:
            yield f"pair {n}: not the same prompt with the other name acting: {corrupted!r}"


def classic_prompts(f: Files) -> Iterator[str]:
    """The eight prompts, in the order of the demo that they come from."""
    wanted = []
    for start, names, end in (("When", "John Mary", "went to the shops,{} gave the bag to"),
                              ("When", "James Tom", "went to the park,{} gave the ball to"),
                              ("When", "Sid Dan", "went to the shops,{} gave an apple to"),
                              ("After", "Amy Martin", "went to the park,{} gave a drink to")):
        first, second = names.split()
        both = "John and Mary" if first == "John" else f"{second} and {first}"
        for s, io in ((first, second), (second, first)):
            wanted.append((f"{start} {both} {end}".format(" " + s), " " + io, " " + s))
    if [(r["prompt"], r["correct"], r["incorrect"]) for r in f.classic] != wanted:
        yield "ioi_classic.csv is not the eight classic prompts"


def reproduced(f: Files) -> Iterator[str]:
    """make_ioi.py writes the committed bytes, twice, whatever the hash seed."""
    for seed in ("0", "1"):
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-B", str(ROOT / "scripts/make_ioi.py"), "--out", out]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL,
                           env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"})
            for name in ("ioi.csv", "ioi-pairs.csv", "ioi_classic.csv", "smollm2-patching/prompts.csv"):
                if (Path(out) / name).read_bytes() != (f.directory / name).read_bytes():
                    yield f"make_ioi.py does not reproduce {name}"


CHECKS: list[Callable[[Files], Iterator[str]]] = [
    places_and_names, pairs_disjoint, objects_disjoint, templates_disjoint, templates_formed,
    enough_rows, test_split_only, proper_swaps, corrupted_prompts, classic_prompts, reproduced]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lists", type=Path, default=ROOT / "scripts/ioi_lists.json")
    parser.add_argument("--csv-dir", type=Path, default=ROOT / "experiments")
    args = parser.parse_args()
    files = Files(args.lists, args.csv_dir)
    failed = 0
    for check in CHECKS:
        problems = list(check(files))
        failed += bool(problems)
        title = (check.__doc__ or "").splitlines()[0]
        print(f"{'FAIL' if problems else 'ok'}  {check.__name__}: {title}")
        for problem in problems[:5]:
            print(f"      {problem}")
        if len(problems) > 5:
            print(f"      and {len(problems) - 5} more")
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
