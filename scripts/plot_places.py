"""What stands on the axis of positions of plot.py's pictures, where prompts differ in length and words.

In: prompts and what the user says of the axis (Options.roles); out: labels, and which of them each position belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plot_common import NotThere, Options, texts_of, token_labels

import h5lens
import numpy as np

PLACES = "pos", "dest_pos", "src_pos"


@dataclass
class Places:
    """Entries of the axis, and which of them each position of each prompt belongs to."""

    labels: list[str]
    of: np.ndarray  # int [prompt, pos]; -1: none
    told: str
    marked: list[int] = field(default_factory=list)


def differing(run: h5lens.Run, rows: np.ndarray) -> np.ndarray:
    """bool [prompt, pos]: where a prompt and its corrupted one have other tokens."""
    return run.tokens(rows) != run.corrupted_tokens(rows)


def pruned(labels: list[str], of: np.ndarray, told: str, marked: Sequence[int] = ()) -> Places:
    """Without the entries that no prompt has."""
    there = [i for i in range(len(labels)) if (of == i).any()]
    new = np.full(len(labels) + 1, -1)
    new[there] = np.arange(len(there))
    return Places([labels[i] for i in there], new[of], told, [int(new[i]) for i in marked if new[i] >= 0])


def shared_labels(run: h5lens.Run, rows: np.ndarray, tokenizer: Path | None) -> list[str] | None:
    """The tokens of prompts of one form: where they differ the column that the token is of, or one prompt's with dots.
    None: their numbers of tokens differ, or more than half of the tokens."""
    if len(set(run.lengths[rows].tolist())) > 1:
        return None
    n, ids = int(run.lengths[rows[0]]), run.tokens(rows)
    same = (ids[:, :n] == ids[0, :n]).all(0)
    labels = token_labels(run, int(rows[0]), tokenizer)[:n]
    if not same.all():
        kinds, of_kind = np.unique(ids[:, :n], return_inverse=True)
        words = np.array([t.strip("·▁ ") for t in texts_of(run, kinds, tokenizer)], dtype=object)
        texts = words[of_kind].reshape(len(rows), n)
        columns = {name: values for name in run.columns if (values := run.columns[name][rows]).dtype.kind == "O"}
        for i in np.flatnonzero(~same):
            of = [name for name, values in columns.items() if (values == texts[:, i]).all()]
            labels[i] = f"[{of[0]}]" if of else labels[i] + " …"
        if sum(label.endswith(" …") for label in labels) > n / 2:
            return None
    return labels


def by_tokens(run: h5lens.Run, rows: np.ndarray, tokenizer: Path | None) -> Places | None:
    """Each position, under its token or the column that it is of. None: the prompts are not of one form."""
    labels = shared_labels(run, rows, tokenizer)
    if labels is None:
        return None
    n, ids = len(labels), run.tokens(rows)
    read = int(run.prompts["read_pos"][rows].max())
    of = np.where(run.tokens(rows) >= 0, np.arange(ids.shape[1]), -1)
    marked = np.flatnonzero(differing(run, rows)[:, :n].any(0)).tolist()
    told = "orange: tokens that differ in the corrupted prompt"
    return pruned(labels[:read + 1], np.where(of > read, -1, of), told, [i for i in marked if i <= read])


def by_parting(run: h5lens.Run, rows: np.ndarray) -> Places:
    """Positions counted from the first token that differs and from the one that is read."""
    labels = ["before", "differs", "+1", "+2", "+3", "between", "−2", "−1", "read"]
    of = np.full(run.tokens(rows).shape, -1)
    reads = run.prompts["read_pos"][rows]
    for row, other, read in zip(of, differing(run, rows), reads):
        first = int(np.argmax(other))
        row[:read + 1] = labels.index("between")
        row[first + 1:first + 4] = np.arange(2, 2 + len(row[first + 1:first + 4]))
        row[max(first + 1, read - 2):read] = np.arange(6, 8)[max(0, 2 - max(0, read - first - 1)):]
        row[:first] = labels.index("before")
        row[read] = labels.index("read")
        row[first] = labels.index("differs")
        row[read + 1:] = -1
    return pruned(labels, of, "places counted from the pair's first token that differs, and from the one that is read; "
                              "before, between: means over several", [1])


def by_roles(run: h5lens.Run, rows: np.ndarray, options: Options) -> Places:
    """Where the texts of columns end, each time that they occur, and the token that is read; the others together."""
    found: list[dict[str, int]] = []
    wanted = {name: run.columns[name] for name in options.roles or ()}
    for r in rows:
        pieces = run.str_tokens(int(r), options.tokenizer)
        text, ends = "".join(pieces), np.cumsum([len(p) for p in pieces])
        here = {}
        for name, values in wanted.items():
            # Of a tokenizer whose tokens show no spaces, words have no edges.
            word = re.escape(str(values[r]).strip())
            edges = rf"(?<!\w){word}(?!\w)" if run.text(int(r)) in text else word
            for i, match in enumerate(re.finditer(edges, text) if word else ()):
                here[f"{name} {i + 1}"] = int(np.searchsorted(ends, match.end()))
        found.append(here)
    names = sorted({name for here in found for name in here},
                   key=lambda name: (float(np.mean([here[name] for here in found if name in here])), name))
    if not names:
        raise NotThere(f"no prompt holds a text of the columns {', '.join(wanted)} (--roles)")
    of = np.full(run.tokens(rows).shape, -1)
    labels = ["others", *names, "read"]
    for row, here, read in zip(of, found, run.prompts["read_pos"][rows]):
        row[:read + 1] = 0
        row[read] = len(labels) - 1
        for name, at in here.items():
            row[at] = labels.index(name) if at <= read else -1
    once = {name for name in wanted if f"{name} 2" not in names}
    shown = [label[:-2] if label[:-2] in once else label for label in labels]
    return pruned(shown, of, "positions where a column's text ends; others: the mean over the rest")


def best_places(run: h5lens.Run, rows: np.ndarray, options: Options) -> Places:
    if options.roles:
        return by_roles(run, rows, options)
    return by_tokens(run, rows, options.tokenizer) or by_parting(run, rows)
