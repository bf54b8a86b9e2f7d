#!/usr/bin/env python3
"""Whether patched and ablated runs are what Hugging Face's modules and TransformerLens 2.16's `patching` say.

    check_patching.py [--h5lens build/h5lens] [--parts patch,ablate] [--truth] [MODEL_DIR …]

For each model (by default the demo's and tests/golden/data/*) it writes pairs of prompts (ragged; read before the end; that
differ at one position or several, behind the read position, at position 0 without BOS) with three answers, runs h5lens on
them, and compares

    /results/patch/<grid>     every grid of include/h5lens/grids.def that the family has, every metric, both directions
    /results/ablate/…         every grid, a set of heads in two layers, zeros, both means, another prompt's
    /results/patch/clean_…, corrupted_…, and <grid>_normalized

with scripts/patching_refs.py: Hugging Face in float64 with plain hooks (raw weights) and TransformerLens in float64 (raw
and processed), its `patching` module on some pairs, run_with_hooks on all. These have to agree first, to AGREE of the
largest logit: they are three ways to the same numbers.

Errors are in units of the RMS of a model's float64 values of a grid and a metric. A grid passes if, over the models of a
family, it is as close to float64 as TransformerLens in float32 (Hugging Face where that cannot hold a model), by the rule
of fidelity.py (RMS no larger, the largest at most 1.5 times its largest), or if every value is within LIMIT, what
tests/golden/test_golden.c allows the metric of an ordinary run (in tiny models it is chance who rounds better).

What must be equal is compared bit for bit, without a tolerance: cells that cannot change anything, and the run that they
depart from; a cell that makes of one run the other; the runs themselves and ordinary tables of the same prompts; the two
directions of exchanged columns; shards, threads, patch.reuse: false and a grid's restriction to some layers, heads and
positions, on each CPU level. NaN stands past a prompt's end and nowhere else. A share (normalized) is compared with that of the
file's own values, to their roundings.

Prints a line a model, a line a family and metric, one for each grid that is not as close, 'N passed, N failed'; exit status 1 on a failure. Needs torch,
transformers, transformer_lens 2.16 and h5py; no test of `make test`.
"""

from __future__ import annotations

import argparse
import csv
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from transformers.utils.logging import set_verbosity_error

import truth
from check_attrs import MAX_FACTOR, Pool, family_of, pooled
from check_head_scores import Tokens, encoded
from checks import ROOT, Checks, models_of, parser_of
from fidelity_errors import Error
from fidelity_refs import load_hf, tl_cannot
from patching_refs import (ABLATE, PATCH, SQUARE, Backend, HuggingFace, Source, TransformerLens, ablate_heads,
                           by_patching_module, capture, grids_of, mean_of, metrics_of, shape_of, sweep, zeros_of)

METRICS = {"logit_diff": "answer_other", "answer_logit": "answer", "answer_logprob": "answer", "kl_divergence": None}
# Of an ordinary run's logit_diff, logits, token_logprobs; a divergence is a sum of probabilities times differences of those.
LIMIT = {"logit_diff": 7e-6, "answer_logit": 6e-6, "answer_logprob": 4e-6, "kl_divergence": 3e-5}
AGREE = 1e-11  # 1e5 roundings of float64
CPUS = ("avx2", "auto")
WAYS = {"in shards": ("--set", "shards.prompts=3"), "on one thread": ("--threads", "1"),
        "without reuse": ("--set", "patch.reuse=false")}
VALUES = {"zero": ("zero",), "mean": ("mean", "ablate.mean_over=prompts"), "mean of tokens": ("mean", "ablate.mean_over=tokens"),
          "resample": ("resample", "ablate.resample=other")}
DIRECTIONS = ("denoise", "noise")
Values = dict[tuple[str, ...], np.ndarray]  # of one prompt, by what they are


# --- prompts --------------------------------------------------------------------------------

@dataclass
class Row:
    clean: str
    corrupted: str
    other: str  # whose activations it gets where it is resampled
    read: int
    answers: list[str]
    tokens: list[Tokens] = field(default_factory=list)  # clean, corrupted, other
    ids: list[int] = field(default_factory=list)

    @property
    def n(self) -> int:
        return len(self.tokens[0])

    @property
    def at(self) -> int:
        return self.read % self.n

    @property
    def parted(self) -> list[int]:
        return [i for i, (a, b) in enumerate(zip(*self.tokens[:2])) if a != b]


# Tokens, BOS counted; read position; where they differ.
PAIRS = ((6, -1, (3,)), (2, -1, (1,)), (3, 1, (1,)), (9, -3, (2, 5)), (13, 12, (9,)), (5, -1, (1, 2, 3, 4)), (7, 3, (5,)), (6, -2, (2,)))
WITHOUT_BOS = ((5, -1, (0,)), (1, 0, (0,)), (8, 5, (0, 6)))


def rows_of(folder: Path, bos: bool) -> list[Row]:
    """Words of one token each. The last pair has the clean prompt of the first."""
    if (folder / "prompts.csv").exists():
        words = [" the", " to", " Mary", " John", " cat", " and", " gave"]
    else:
        words = [" and", " to", " the", " gave", " went", " a", " of"]
    rng, rows = np.random.RandomState(14), []
    for i, (n, read, parts) in enumerate(PAIRS if bos else WITHOUT_BOS):
        clean = rng.randint(len(words), size=n - bos)
        if i == len(PAIRS) - 1:
            clean = first
        first = clean if i == 0 else first
        corrupted, other = clean.copy(), rng.randint(len(words), size=n - bos)
        for p in parts:
            corrupted[p - bos] = (corrupted[p - bos] + 1 + rng.randint(len(words) - 1)) % len(words)
        texts = ["".join(words[w] for w in x) for x in (clean, corrupted, other)]
        rows.append(Row(*texts, read, [words[(i + k) % len(words)] for k in range(3)]))
        rows[-1].tokens = encoded(folder, texts, bos)
        rows[-1].ids = [t[0] for t in encoded(folder, rows[-1].answers, False)]
        if rows[-1].parted != list(parts) or len(rows[-1].tokens[0]) != n:
            sys.exit(f"{folder}: not the tokens that were meant: {rows[-1]}")
    return rows


# --- the references -------------------------------------------------------------------------

@dataclass
class Runs:
    """What a model makes of all rows' prompts."""

    model: Backend
    logits: list[list[torch.Tensor]]  # [row][clean, corrupted, other] [P, V]
    values: list[list[Source]]


def runs_of(model: Backend, rows: list[Row]) -> Runs:
    found = [[capture(model, t) for t in row.tokens] for row in rows]
    return Runs(model, [[a for a, _ in row] for row in found], [[b for _, b in row] for row in found])


def patched(runs: Runs, rows: list[Row], i: int) -> Values:
    """By direction, grid and metric; the runs themselves by grid "clean" and "corrupted"."""
    row, out = rows[i], {}
    logits = [x[row.at] for x in runs.logits[i]]
    for d, direction in enumerate(DIRECTIONS):
        base, source = (1, 0) if direction == "denoise" else (0, 1)
        cells = sweep(runs.model, grids_of(runs.model), row.tokens[base], runs.values[i][source], row.at)
        for name, x in (*cells.items(), *zip(("clean", "corrupted"), logits)):
            for metric, value in metrics_of(x, logits[0], row.ids).items():
                out[direction, name, metric] = value
    return out


def set_of(model: Backend) -> list[tuple[int, int]]:
    return [(0, 0), (model.n_layers - 1, model.heads - 1), (model.n_layers - 1, 0)]


def ablated(runs: Runs, rows: list[Row], i: int) -> Values:
    """By value, grid and metric; the set of heads as a grid called "sets"."""
    row, out, clean = rows[i], {}, [v[0] for v in runs.values]
    sources = {"zero": zeros_of(clean[i]), "mean": mean_of(clean, row.n, True), "mean of tokens": mean_of(clean, row.n, False),
               "resample": runs.values[i][2]}
    for value, source in sources.items():
        cells = sweep(runs.model, ABLATE, row.tokens[0], source, row.at)
        cells["sets"] = ablate_heads(runs.model, set_of(runs.model), row.tokens[0], source, row.at)[None]
        for grid, x in cells.items():
            out[value, grid, "logit_diff"] = metrics_of(x, runs.logits[i][0][row.at], row.ids)["logit_diff"]
    return out


def moves(key: tuple[str, ...]) -> bool:
    """Whether processed weights have another value: centred logits; one entry of a pattern, of values without their bias."""
    return key[1] == "attn_head_pattern_dest_src_pos" or key[2] == "answer_logit"


def check_agree(c: Checks, what: str, a: list[Values], b: list[Values], raw: bool) -> float:
    worst = 0.0
    for x, y in zip(a, b):
        for key in x:
            if raw or not moves(key):
                far = np.abs(x[key] - y[key]).max() / max(1.0, np.abs(x[key]).max()) if x[key].shape == y[key].shape else np.inf
                c.that(far <= AGREE, f"{what}: {key}: {far}")
                worst = max(worst, far)
    return worst


def check_module(c: Checks, what: str, runs: Runs, rows: list[Row], want: list[Values]) -> float:
    """transformer_lens.patching itself, on a pair for each direction: that of six tokens, and one read before its end."""
    worst = 0.0
    for direction, i in (("denoise", 0), ("noise", 2)):
        row = rows[i]
        base, source = (1, 0) if direction == "denoise" else (0, 1)
        for grid in grids_of(runs.model):
            logits = by_patching_module(runs.model, grid, row.tokens[base], row.tokens[source], row.at)
            is_ = metrics_of(logits, runs.logits[i][0][row.at], row.ids)
            of = {(direction, grid, metric): want[i][direction, grid, metric] for metric in METRICS}
            worst = max(worst, check_agree(c, f"{what}, patching", [of], [{key: is_[key[2]] for key in of}], True))
    return worst


# --- h5lens ---------------------------------------------------------------------------------

@dataclass
class Program:
    """One binary on one model's rows."""

    binary: Path
    folder: Path
    out: Path
    bos: bool
    raw: bool

    def command(self, rows: list[Row], *more: str, exchanged: bool = False) -> list[str]:
        data = self.out.with_suffix(".csv")
        with open(data, "w", encoding="utf-8", newline="") as f:
            w = csv.writer(f, lineterminator="\n")
            w.writerow(["prompt", "corrupted", "other", "read", "a", "b", "c"])
            for r in rows:
                two = (r.corrupted, r.clean) if exchanged else (r.clean, r.corrupted)
                w.writerow([*two, r.other, r.read, *r.answers])
        settings = [x for m in ("data.read_pos=read", f"data.prepend_bos={str(self.bos).lower()}") for x in ("--set", m)]
        return [str(self.binary), "run", "--model", str(self.folder), "--data", str(data), "--answers", "a,b,c", "--hooks", "none",
                "-o", str(self.out), "--overwrite", "--quiet", *settings, *(("--raw-weights",) if self.raw else ()), *more]

    def run(self, rows: list[Row], *more: str, exchanged: bool = False) -> dict[str, Any]:
        """Data sets under /results, by name, with their dimensions; and the tokens."""
        run = subprocess.run(self.command(rows, *more, exchanged=exchanged), capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{' '.join(run.args)}\nended with {run.returncode}:\n{run.stderr}")
        found: dict[str, Any] = {}
        with h5py.File(self.out) as f:
            f["results"].visititems(lambda name, d: found.__setitem__(name, d[:]) if isinstance(d, h5py.Dataset) else None)
            found["dims"] = {name: [s.name[1:] for d in f["results"][name].dims for s in d.values()] for name in found}
            found["tokens"] = [[row[:n].tolist() for row, n in zip(f[f"prompts/{t}"][:], f["prompts/length"][:])]
                               for t in ("tokens", "corrupted_tokens") if f"prompts/{t}" in f]
        return found


def patching(direction: str, metric: str, grids: Iterable[str], *more: str) -> list[str]:
    settings = (f"patch.grids=[{','.join(grids)}]", f"patch.direction={direction}", f"patch.metric={metric}", *more)
    return ["--corrupted", "corrupted", "--tables", "logit_diff,answer_logit,answer_logprob",
            *(x for s in settings for x in ("--set", s))]


def cut(x: np.ndarray, axes: tuple[str, ...], n: int) -> tuple[np.ndarray, np.ndarray]:
    """One prompt's cells, and what stands past its end; axes without the last of the metric."""
    inside = tuple(slice(n) if axis.endswith("pos") else slice(None) for axis in axes)
    past = np.ones(x.shape, bool)
    past[inside] = False
    return x[inside], x[past]


def is_nan_past(x: np.ndarray, axes: tuple[str, ...], n: int) -> bool:
    inside, past = cut(x, axes, n)
    return bool(np.isnan(past).all() and np.isfinite(inside).all())


def unchanged(row: Row, grid: str, shape: tuple[int, ...], last: int) -> np.ndarray:
    """Cells that cannot change what is read, whatever the weights: [*axes] of bool."""
    activation, axes = PATCH[grid]
    at = dict(zip(axes, np.indices(shape)))
    same = np.zeros(shape, bool)
    if row.parted[0] > row.at:
        return ~same
    pos = at.get("pos", at.get("dest_pos"))
    if pos is None:
        return same
    same |= (pos > row.at) | (pos < row.parted[0])
    if activation not in ("resid_pre", "k", "v"):  # in the last layer they act on their own position only
        same |= (at["layer"] == last) & (pos != row.at)
    if activation in SQUARE:
        same |= pos == 0  # one key: all of its attention
        same |= at.get("src_pos", pos) > pos
    if activation in ("resid_pre", "q", "k", "v"):  # a token's own in the first layer
        same |= (at["layer"] == 0) & ~np.isin(pos, row.parted)
    return same


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# --- exact checks -----------------------------------------------------------------------------

def check_cells(c: Checks, what: str, got: dict[str, Any], rows: list[Row], model: Backend, direction: str, metric: str) -> None:
    """Dimensions, NaN, and cells that are equal to a run."""
    tail = [METRICS[metric]] if METRICS[metric] else []
    names = {f"patch/{g}" for g in grids_of(model)} | {f"patch/{r}_{metric}" for r in ("clean", "corrupted")}
    found = {name for name in got["dims"] if name.startswith("patch/") and not name.endswith("_normalized")}
    c.that(found == names, f"{what}: data sets {sorted(found ^ names)}")
    base, other = (got[f"patch/{r}_{metric}"] for r in (("corrupted", "clean") if direction == "denoise" else ("clean", "corrupted")))
    for grid in grids_of(model):
        name, axes = f"patch/{grid}", PATCH[grid][1]
        named = [a if a != "kv_head" or model.kv_heads < model.heads else "head" for a in axes]
        c.that(got["dims"][name] == ["prompt", *named, *tail], f"{what}: {grid}: dimensions {got['dims'][name]}")
        c.that(got[name].dtype == np.float32, f"{what}: {grid}: {got[name].dtype}")
        for i, row in enumerate(rows):
            c.that(is_nan_past(got[name][i], axes, row.n), f"{what}: {grid}: row {i}: NaN past its end and nowhere else")
            cells, _ = cut(got[name][i], axes, row.n)
            shape = shape_of(model, PATCH[grid], row.n)
            kept = cells[unchanged(row, grid, shape, model.n_layers - 1)]
            c.that(same_bits(kept, np.broadcast_to(base[i], kept.shape).copy()), f"{what}: {grid}: row {i}: cells that change nothing")
            if grid == "resid_pre" and len(row.parted) == 1:  # that is the other run
                c.that(same_bits(cells[0, row.parted[0]], other[i]), f"{what}: {grid}: row {i}: the cell that exchanges the runs")


def check_runs(c: Checks, what: str, got: dict[str, Any], plain: dict[str, Any], metric: str) -> None:
    """The runs themselves beside ordinary tables of the same prompts."""
    if metric == "kl_divergence":
        c.that(not got["patch/clean_kl_divergence"].any(), f"{what}: the clean run's divergence from itself")
        for name in got:
            if name.startswith("patch/") and not name.endswith("_normalized"):
                c.that(bool((got[name][np.isfinite(got[name])] >= 0).all()), f"{what}: {name} is not negative")
        return
    c.that(same_bits(got[f"patch/clean_{metric}"], got[metric]), f"{what}: clean_{metric} and /results/{metric}")
    c.that(same_bits(got[f"patch/corrupted_{metric}"], plain[metric]), f"{what}: corrupted_{metric} and an ordinary run's")


def check_share(c: Checks, what: str, got: dict[str, Any], metric: str) -> None:
    """(x - corrupted) / (clean - corrupted), to the roundings of the three and its own."""
    clean, corrupted = (got[f"patch/{r}_{metric}"].astype(np.float64) for r in ("clean", "corrupted"))
    for name in [n for n in got if n.startswith("patch/") and f"{n}_normalized" in got]:
        x, share = got[name].astype(np.float64), got[f"{name}_normalized"]
        lift = (len(clean), *(1,) * (x.ndim - clean.ndim), *clean.shape[1:])
        a, b = clean.reshape(lift), corrupted.reshape(lift)
        with np.errstate(divide="ignore", invalid="ignore"):
            want = np.where(a == b, np.nan, (x - b) / (a - b))
            room = 2.0**-24 * ((np.abs(x) + np.abs(b) + np.abs(want) * (np.abs(a) + np.abs(b))) / np.abs(a - b) + 2 * np.abs(want))
        c.that(np.array_equal(np.isnan(share), np.isnan(want)), f"{what}: {name}_normalized: NaN where the runs are equal")
        there = np.isfinite(want)
        c.that(bool((np.abs(share[there] - want[there]) <= room[there]).all()), f"{what}: {name}_normalized")


def check_ways(c: Checks, what: str, p: Program, rows: list[Row], got: dict[str, Any], settings: list[str]) -> None:
    patches = [name for name in got if name.startswith("patch/")]
    for way, more in WAYS.items():
        again = p.run(rows, *settings, *more)
        for name in patches:
            c.that(same_bits(again[name], got[name]), f"{what} {way}: {name}")
    again = p.run(rows[::-1], *settings)
    for name in patches:
        c.that(same_bits(again[name][::-1].copy(), got[name]), f"{what}, rows in reverse: {name}")


def check_part(c: Checks, what: str, p: Program, rows: list[Row], got: dict[str, Any], settings: list[str], model: Backend) -> None:
    """The last layer, its last head and the read position from the end: the same bits there, NaN elsewhere."""
    layer, head = model.n_layers - 1, model.heads - 1
    part = p.run(rows, *settings, *(x for s in (f"patch.layers=[{layer}]", f"patch.heads=[\"{layer}.{head}\"]", "patch.positions=[-1]")
                                    for x in ("--set", s)))
    for grid in grids_of(model):
        axes = PATCH[grid][1]
        for i, row in enumerate(rows):
            asked = np.ones(shape_of(model, PATCH[grid], row.n), bool)
            for axis, index in zip(axes, np.indices(asked.shape)):
                only = {"layer": layer, "head": head, "kv_head": model.kv_heads - 1, "pos": row.n - 1, "dest_pos": row.n - 1}
                asked &= index == only[axis] if axis in only else True
            cells, _ = cut(part[f"patch/{grid}"][i], axes, row.n)
            whole, _ = cut(got[f"patch/{grid}"][i], axes, row.n)
            c.that(same_bits(cells[asked], whole[asked]) and bool(np.isnan(cells[~asked]).all()), f"{what}: {grid}: row {i}: a part of it")


# --- comparing ------------------------------------------------------------------------------

Errors = dict[tuple[str, ...], Error]
Pools = dict[tuple[str, str, str], Pool]  # by family, grid and metric


def judged(key: tuple[str, ...]) -> tuple[str, str]:
    """Grid and metric: directions and values count together."""
    return ("ablate " if key[0] in VALUES else "") + key[1], key[2]


def add(errors: Errors, got: Values, want: Values) -> None:
    for key in want:
        errors.setdefault(judged(key), Error()).add(got[key], want[key])


def from_file(got: dict[str, Any], rows: list[Row], direction: str, metric: str, model: Backend) -> list[Values]:
    out: list[Values] = [{} for _ in rows]
    for i, row in enumerate(rows):
        for grid in grids_of(model):
            out[i][direction, grid, metric] = cut(got[f"patch/{grid}"][i], PATCH[grid][1], row.n)[0]
        for run in ("clean", "corrupted"):
            out[i][direction, run, metric] = got[f"patch/{run}_{metric}"][i]
    return out


def check_patch(c: Checks, what: str, p: Program, rows: list[Row], model: Backend) -> tuple[list[Values], ...]:
    """Of each CPU level, all rows' values."""
    levels = []
    for cpu in CPUS:
        values: list[Values] = [{} for _ in rows]
        level, kept = ("--cpu", cpu), {}
        swapped = [Row(r.corrupted, r.clean, r.other, r.read, r.answers) for r in rows]
        plain = p.run(swapped, "--tables", "logit_diff,answer_logit,answer_logprob", *level)
        for direction in DIRECTIONS:
            for metric in METRICS:
                at = f"{what} {cpu} {direction} {metric}"
                settings = [*patching(direction, metric, grids_of(model), "patch.normalize=true"), *level]
                got = p.run(rows, *settings)
                c.that(got["tokens"] == [[r.tokens[k] for r in rows] for k in (0, 1)], f"{at}: tokens")
                check_cells(c, at, got, rows, model, direction, metric)
                check_runs(c, at, got, plain, metric)
                check_share(c, at, got, metric)
                for i, v in enumerate(from_file(got, rows, direction, metric, model)):
                    values[i].update(v)
                if metric == "logit_diff":
                    kept[direction] = got
                    check_ways(c, at, p, rows, got, settings)
                    check_part(c, at, p, rows, got, settings, model)
        back = p.run(rows, *patching("noise", "logit_diff", grids_of(model)), *level, exchanged=True)
        for grid in grids_of(model):
            c.that(same_bits(back[f"patch/{grid}"], kept["denoise"][f"patch/{grid}"]), f"{what} {cpu}: {grid}: columns and direction exchanged")
        levels.append(values)
    return tuple(levels)


def check_ablate(c: Checks, what: str, p: Program, rows: list[Row], model: Backend) -> tuple[list[Values], ...]:
    heads = ",".join(f'"{layer}.{head}"' for layer, head in dict.fromkeys(set_of(model)))
    levels = []
    for cpu in CPUS:
        values: list[Values] = [{} for _ in rows]
        for value, settings in VALUES.items():
            asked = (f"ablate.grids=[{','.join(ABLATE)}]", f"ablate.sets={{some: [{heads}]}}", f"ablate.value={settings[0]}", *settings[1:])
            command = ["--cpu", cpu, "--tables", "logit_diff", *(x for s in asked for x in ("--set", s))]
            got = p.run(rows, *command)
            again = p.run(rows, *command, *WAYS["in shards"])
            for grid in (*ABLATE, "sets"):
                name = f"ablate/{grid}"
                axes = ["set"] if grid == "sets" else list(ABLATE[grid][1])
                c.that(got["dims"][name] == ["prompt", *axes, "answer_other"], f"{what} {value}: {name}: dimensions {got['dims'][name]}")
                c.that(bool(np.isfinite(got[name]).all()), f"{what} {value}: {name}: not finite")
                c.that(same_bits(again[name], got[name]), f"{what} {cpu} {value} in shards: {name}")
                for i in range(len(rows)):
                    values[i][value, grid, "logit_diff"] = got[name][i]
        levels.append(values)
    return tuple(levels)


PARTS = {"patch": (patched, check_patch), "ablate": (ablated, check_ablate)}


def check_errors(pools: Pools, family: str, want: list[Values], ours: tuple[list[Values], ...], theirs: list[Values], c: Checks, what: str) -> float:
    """A model's, into its family's pools; returns the largest of ours."""
    sides: list[tuple[Errors, bool]] = [({}, True) for _ in ours] + [({}, False)]
    for (errors, _), values in zip(sides, (*ours, theirs)):
        for v, w in zip(values, want):
            add(errors, v, w)
    worst = 0.0
    for errors, is_ours in sides:
        for (grid, metric), e in errors.items():
            c.that(not e.wrong, f"{what}: {grid} {metric}: {e.wrong}")
            pool = pools.setdefault((family, grid, metric), Pool())
            (pool.ours if is_ours else pool.theirs).append(e.relative())
            worst = max(worst, e.relative()[1] if is_ours else 0.0)
    return worst


def judge(c: Checks, pools: Pools) -> None:
    """A line a family and metric; one more for each grid that is not as close."""
    worst: dict[tuple[str, str], list[float]] = {}
    for (family, grid, metric), pool in sorted(pools.items()):
        if not pool.ours:
            continue
        rms, largest = pooled(pool.ours)
        t_rms, t_largest = pooled(pool.theirs)
        close = rms <= t_rms and largest <= MAX_FACTOR * t_largest
        within = largest <= LIMIT[metric]
        c.that(close or within, f"{family}: {grid} {metric}")
        worst.setdefault((family, metric), []).append(largest)
        if not close:
            print(f"  {family:22s} {grid:38s} {metric:14s} rms {rms:.1e} / {t_rms:.1e}, largest {largest:.1e} / {t_largest:.1e}: "
                  f"{'within the limit' if within else 'FAIL'}")
    for (family, metric), each in worst.items():
        print(f"  {family:22s} {metric:14s} {len(each)} grids and runs; largest error {max(each):.1e}, limit {LIMIT[metric]:.1e}")


# --- models ---------------------------------------------------------------------------------

def check_model(c: Checks, pools: Pools, args: argparse.Namespace, folder: Path, tmp: Path, bos: bool) -> None:
    rows, what = rows_of(folder, bos), f"{folder.name}{'' if bos else ' without BOS'}"
    why = tl_cannot(load_hf(str(folder), torch.float32).config)
    hf = runs_of(HuggingFace(folder, torch.float64), rows)
    for part in args.parts:
        of, check = PARTS[part]
        exact = [of(hf, rows, i) for i in range(len(rows))]
        for raw in (True, False):
            if why and not raw:
                continue
            at, flags = f"{what}{' raw' if raw else ''} {part}", {f: not raw for f in truth.PROCESSING}
            want, far = exact, {}
            narrow: Backend = HuggingFace(folder, torch.float32) if why else TransformerLens(folder, torch.float32, flags)
            if not why:
                tl = runs_of(TransformerLens(folder, torch.float64, flags), rows)
                want = [of(tl, rows, i) for i in range(len(rows))]
                if part == "patch" and bos:
                    far["patching and hooks"] = check_module(c, at, tl, rows, want)
                if raw or part == "patch":
                    far["Hugging Face and TransformerLens"] = check_agree(c, at, exact, want, raw)
            theirs_of = runs_of(narrow, rows)
            theirs = [of(theirs_of, rows, i) for i in range(len(rows))]
            ours = () if args.truth else check(c, at, Program(args.h5lens, folder, tmp / "out.h5", bos, raw), rows, hf.model)
            far["h5lens, in RMS"] = check_errors(pools, family_of(folder), exact if raw else want, ours, theirs, c, at)
            print(f"  {at}: {len(rows)} pairs; " + ", ".join(f"{k} {v:.1e}" for k, v in far.items()) + (f"; {why}" if why else ""), flush=True)
    if hf.model.parallel and not args.truth:
        p = Program(args.h5lens, folder, tmp / "no.h5", bos, True)
        run = subprocess.run(p.command(rows, *patching("denoise", "logit_diff", ["resid_mid"])), capture_output=True, text=True)
        c.that(run.returncode == 2 and "resid_mid" in run.stderr, f"{what}: resid_mid in parallel blocks: {run.returncode} {run.stderr}")


def check_names(c: Checks) -> None:
    """No grid of the program is left out, and none has other axes."""
    text = (ROOT / "include/h5lens/grids.def").read_text(encoding="utf-8")
    found = {m[1]: (m[2], tuple(a.strip().lower() for a in m[3].split(","))) for m in re.finditer(r"^LENS_GRID\((\w+), (\w+), ([A-Z_, ]+)\)", text, re.M)}
    c.that(found == {g: (a.upper(), axes) for g, (a, axes) in PATCH.items()}, f"grids.def: {sorted(found)}")


def main() -> int:
    p = parser_of(__doc__)
    p.add_argument("--parts", type=lambda s: s.split(","), default=list(PARTS), help="patch, ablate, or both")
    p.add_argument("--truth", action="store_true", help="Hugging Face and TransformerLens alone")
    args = p.parse_args()
    set_verbosity_error()
    logging.disable(logging.WARNING)
    c, pools = Checks(), {}
    torch.set_num_threads(1)  # tiny models
    check_names(c)
    with tempfile.TemporaryDirectory() as tmp, torch.inference_mode():
        for folder in models_of(args):
            for bos in (True, False):
                check_model(c, pools, args, folder, Path(tmp), bos)
    print("ours / TransformerLens in float32, of all models of a family; in units of the RMS of float64's values")
    judge(c, pools)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
