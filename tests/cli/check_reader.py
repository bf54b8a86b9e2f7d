"""Checks an output file of h5lens through the Python readers.

    python tests/cli/check_reader.py OUT.h5 [MODEL_DIR]     a real file
    python tests/cli/check_reader.py --self-test            files made by reader_fixture.py, good and damaged

The file must open with h5py, xarray and h5dump, match its digests, and keep the conventions that the reader
documents: NaN and -1 exactly past a prompt's end, causal patterns that sum to 1, aliases that are equal, tables
that agree with each other. MODEL_DIR adds the text of the tokens and, of a GPT-2, the attribution of the logit
difference to what writes to the residual stream. Of a large file, the first --rows rows.
Prints one line per failure, then 'N passed, N failed'; exit status 1 on a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
import unittest.mock
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import xarray

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "scripts"), str(HERE)]
import checks  # noqa: E402
import h5lens  # noqa: E402


class Checks(checks.Checks):
    """A check is one statement about the file."""

    def close(self, a: np.ndarray, b: np.ndarray, tol: float, what: str) -> None:
        """Equal to tol relative to the largest of 1 and the last dimension's values, NaN with NaN."""
        if a.shape != b.shape:
            self.that(False, f"{what}: {a.shape} against {b.shape}")
            return
        scale = np.maximum(1, np.max(np.abs(np.nan_to_num(b)), axis=-1, keepdims=True, initial=0))
        same = np.allclose(a / scale, b / scale, rtol=0, atol=tol, equal_nan=True)
        self.that(same, what if same else f"{what} (off by {np.nanmax(np.abs(a - b) / scale):.3g})")


class File:
    """A run with the number of rows to look at and a cache of one row at a time."""

    def __init__(self, run: h5lens.Run, n_rows: int) -> None:
        self.run = run
        self.rows = slice(0, min(n_rows, len(run)))
        self.length = run.lengths[self.rows]
        flags = run.results["flags"][self.rows] if "flags" in run.results else np.zeros(len(self.length), "u1")
        self.sound = (flags & 3) == 0  # the rows whose logits are finite
        self.half = any(run.dataset(h).dtype == np.float16 for h in run.hooks)

    def result(self, name: str) -> np.ndarray:
        """A table's sound rows."""
        return self.run.results.dataset(name)[self.rows][self.sound]

    def has(self, *names: str) -> bool:
        return all(n in self.run.results for n in names)

    def hooks(self, leaf: str) -> list[str]:
        return [h for h in self.run.hooks if h.endswith("." + leaf)]

    def tol(self, exact: float, half: float) -> float:
        return half if self.half else exact


# --- one function per subject ---------------------------------------------------

def check_opens(c: Checks, f: File) -> None:
    found = f.run.verify()
    c.that(bool(found), f"digests: {found.wrong or 'none at all'}")
    with h5py.File(f.run.path, "r") as file:
        for group in ("prompts", "results", "cache", "tokens"):
            for name, d in file.get(group, {}).items():
                if isinstance(d, h5py.Dataset):
                    c.that(all(len(dim) == 1 and dim[0].shape == (n,) for dim, n in zip(d.dims, d.shape)),
                           f"/{group}/{name}: a dimension scale on each dimension")
    with xarray.open_datatree(f.run.path, engine="h5netcdf") as plain:
        same_tree(c, f, plain)
    tree = f.run.tree
    c.that(tree["prompts"]["length"].dims == ("prompt",), "xarray: /prompts/length is [prompt]")
    c.that(np.array_equal(tree["prompts"]["length"].values, f.run.lengths), "xarray: lengths")
    for hook in f.run.hooks[:3]:
        ragged = f"tokens/{hook}" in f.run.file
        got = tree["tokens" if ragged else "cache"][hook]
        dims, first = f.run.dims(hook), f.run.cache(hook, rows=0)
        if ragged:  # what is stored of the first prompt
            dims, first = ("token", *dims[2:]), f.run.by_token(hook, rows=0)
        c.that(got.dims == dims and got.dtype == f.run.dataset(hook).dtype, f"xarray: {hook}")
        c.that(np.array_equal((got[:len(first)] if ragged else got[0]).values, first, equal_nan=True),
               f"xarray: {hook}[0]")
    check_labels(c, f)
    if shutil.which("h5dump"):
        dump = subprocess.run(["h5dump", "-H", f.run.path], capture_output=True, text=True, check=False)
        c.that(dump.returncode == 0 and "error" not in dump.stderr.lower(), f"h5dump -H: {dump.stderr[:300]}")
    else:
        print("skipped: h5dump is not installed")


def check_labels(c: Checks, f: File) -> None:
    """Every dimension whose scale holds texts is a coordinate with them, of each table that has the dimension."""
    labels = {name: list(d.asstr()[...]) for name, d in f.run.file.items()
              if isinstance(d, h5py.Dataset) and h5py.check_string_dtype(d.dtype) is not None}
    c.that(not f.has("rank_per_layer") or labels.get("lens_layer") == f.run.lens_layers, "the labels of lens_layer")
    for table in f.run.results:
        dims = [str(dim[0].name).strip("/") for dim in f.run.file[f"results/{table}"].dims]
        for where, got in (("tree", f.run.tree["results"][table]),
                           ("to_dataset", f.run.tree["results"].to_dataset()[table])):
            wanted = {d: labels[d] for d in dims if d in labels}
            c.that({d: list(got.coords[d].values) for d in got.dims if d in got.coords} == wanted,
                   f"{where}: the labels of {table}: {wanted}, not {dict(got.coords)}")
    if f.has("head_scores"):
        scores = f.run.tree["results"]["head_scores"]
        first = scores.sel(score="first_token")
        at = labels["score"].index("first_token")
        c.that(np.array_equal(first.values, f.run.results["head_scores"][..., at], equal_nan=True),
               "head_scores by the label first_token")


def same_tree(c: Checks, f: File, plain: xarray.DataTree) -> None:
    """The file opened by xarray alone holds what run.tree does."""
    for group in ("prompts", "prompts/columns", "results", "cache", "tokens"):
        if group not in plain:
            c.that(group not in f.run.tree, f"tree: {group}")
            continue
        ours, theirs = f.run.tree[group], plain[group]
        c.that(set(ours.data_vars) == set(theirs.data_vars), f"tree: the variables of {group}")
        for name in list(ours.data_vars)[:12]:
            a, b = ours[name], theirs[name]
            rows = a[f.rows].values, b[f.rows].values
            text = h5py.check_string_dtype(f.run.file[f"{group}/{name}"].dtype) is not None
            same = np.array_equal(*rows, equal_nan=rows[0].dtype.kind == "f")
            c.that(same and a.dims == b.dims and (text or rows[0].dtype == rows[1].dtype), f"tree: {group}/{name}")


def check_about(c: Checks, f: File) -> None:
    run = f.run
    for name in ("sha256_model", "sha256_tokenizer", "sha256_data"):
        c.that(bool(re.fullmatch("[0-9a-f]{64}", str(run.attr(name)))), f"{name} is a SHA-256")
    for name in ("h5lens_version", "experiment_source", "cpu_level", "blas", "build"):
        c.that(isinstance(run.attr(name), str), f"{name} is a string")
    config = run.model_config
    c.that(all(config.get(k, 0) > 0 for k in ("n_layers", "d_model", "n_heads", "d_head", "d_vocab")),
           "the model's sizes are in model_config")
    c.that({"model", "data"} <= run.experiment.keys(), "the experiment has model and data")
    if f.has("rank_per_layer"):
        want = [f"{i}_pre" for i in range(config["n_layers"])] + ["final_post"]
        c.that(run.lens_layers == want, "lens_layer is 0_pre, …, final_post")


def check_prompts(c: Checks, f: File) -> None:
    run, tokens, length = f.run, f.run.tokens(f.rows), f.length
    c.that(np.array_equal(tokens >= 0, run.mask(f.rows)), "tokens are -1 exactly past the end")
    c.that(tokens.max() < run.model_config["d_vocab"], "tokens are below d_vocab")
    c.that(run.lengths.min() >= 1 and run.lengths.max() == run.tokens(slice(0, 0)).shape[1],
           "pos is the longest prompt's length")
    read = run.prompts["read_pos"][f.rows]
    c.that(bool(((read >= 0) & (read < length)).all()), "read_pos is inside the prompt")
    ids = run.prompts["id"]
    c.that(ids.dtype == np.int64 and ids[0] >= 1 and bool((np.diff(ids) > 0).all()), "id ascends from 1")
    c.that(all(isinstance(t, str) and t for t in run.text(f.rows)), "text is there")
    if "corrupted_tokens" in run.prompts:
        corrupted = run.corrupted_tokens(f.rows)
        c.that(np.array_equal(corrupted >= 0, run.mask(f.rows)), "corrupted prompts are as long as the prompts")
        c.that(bool((corrupted != tokens).any(1).all()), "no corrupted prompt is the prompt")
        c.that(all(isinstance(t, str) and t for t in run.corrupted_text(f.rows)), "corrupted_text is there")
    positions = run.positions(f.rows)
    c.that(bool(((positions >= -1) & (positions < length[:, None])).all()), "slot_pos is inside the prompt")
    for name in run.columns:
        c.that(run.columns.dataset(name).shape == (len(run),), f"column {name} has a value per prompt")
    if "answers" in run.prompts:
        c.that(run.answer_text().shape == run.prompts.dataset("answers").shape,
               "one answer_text per answer")


def past_end(f: File, hook: str, shape: tuple[int, ...]) -> np.ndarray:
    """bool, broadcastable to [row, …]: where there must be NaN."""
    dims = f.run.dims(hook)
    no_query = f.run.positions(f.rows) < 0
    axis = next(i for i, d in enumerate(dims) if d in ("pos", "slot", "query"))
    gone = np.zeros((1,) * len(shape), bool)
    gone = gone | no_query.reshape([shape[0]] + [-1 if i == axis else 1 for i in range(1, len(shape))])
    if "key" in dims:
        gone = gone | ~f.run.mask(f.rows).reshape(shape[0], *[1] * (len(shape) - 2), -1)
    return np.broadcast_to(gone, shape)


def check_cache(c: Checks, f: File) -> None:
    seen = f.run.aliases
    for hook in f.run.hooks:
        if hook in seen:
            continue
        x = f.run.cache(hook, rows=f.rows)
        c.that(np.array_equal(np.isnan(x[f.sound]), past_end(f, hook, x.shape)[f.sound]),
               f"{hook}: NaN exactly past the end")
        if not hook.endswith("attn_scores") and x.dtype != np.float16:  # which may overflow
            c.that(not np.isinf(x[f.sound]).any(), f"{hook}: no infinity")
        if hook.endswith("hook_scale"):
            c.that(not (x[f.sound] <= 0).any(), f"{hook}: above zero")
    for hook in f.hooks("attn.hook_pattern"):
        check_pattern(c, f, hook)


def check_pattern(c: Checks, f: File, hook: str) -> None:
    x = f.run.cache(hook, rows=f.rows, dtype=np.float64)[f.sound]
    at = f.run.positions(f.rows)[f.sound]
    future = (np.arange(x.shape[-1]) > at[:, None, :, None]) & ~np.isnan(x)
    live = np.broadcast_to((at >= 0)[:, None], x.shape[:3])
    c.that(not x[future].any(), f"{hook}: causal")
    c.that(not (x < 0).any(), f"{hook}: not negative")
    c.close(np.nansum(x, -1)[live], np.ones(live.sum()), f.tol(1e-5, 4e-3), f"{hook}: rows sum to 1")
    scores = hook.replace("hook_pattern", "hook_attn_scores")
    if scores not in f.run.hooks:
        return
    s = f.run.cache(scores, rows=f.rows, dtype=np.float64)[f.sound]
    c.that(bool((s[future] == -np.inf).all()), f"{scores}: -inf for later keys")
    s = np.where(live[..., None] & ~np.isnan(s), s, -np.inf)[live]
    e = np.exp(s - s.max(-1, keepdims=True))
    c.close(np.nan_to_num(x[live]), e / e.sum(-1, keepdims=True), f.tol(2e-5, 2e-2), f"{hook}: softmax of scores")


def check_sums(c: Checks, f: File) -> None:
    """The residual stream is the sum of what is written to it; a layer starts where the last one ended."""
    get: Callable[[str, int], np.ndarray] = lambda n, i: f.run.cache(n, i, rows=f.rows, dtype=np.float32)[f.sound]
    tol = f.tol(2e-5, 1e-2)
    for i in range(f.run.model_config["n_layers"]):
        has = {n: f"blocks.{i}.hook_{n}" in f.run.hooks
               for n in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_in")}
        if has["resid_post"] and f"blocks.{i + 1}.hook_resid_pre" in f.run.hooks:
            c.that(np.array_equal(get("resid_pre", i + 1), get("resid_post", i), equal_nan=True),
                   f"resid_pre {i + 1} is resid_post {i}")
        if has["resid_mid"] and has["resid_pre"] and has["attn_out"]:
            c.close(get("resid_mid", i), get("resid_pre", i) + get("attn_out", i), tol, f"resid_mid {i} is a sum")
        if has["mlp_in"] and has["resid_mid"]:
            c.that(np.array_equal(get("mlp_in", i), get("resid_mid", i), equal_nan=True), f"mlp_in {i}")
        if has["resid_post"] and has["resid_pre"] and has["attn_out"] and has["mlp_out"]:
            total = get("resid_pre", i) + get("attn_out", i) + get("mlp_out", i)
            c.close(get("resid_post", i), total, tol, f"resid_post {i} is a sum")


def check_tables(c: Checks, f: File) -> None:
    own_lens = "cached_scale_no_bias" not in str(f.run.experiment)
    if f.has("rank_per_layer", "answer_rank") and own_lens:
        c.that(np.array_equal(f.result("rank_per_layer")[:, -1], f.result("answer_rank")),
               "the last layer's rank is answer_rank")
    if f.has("lens_logit", "answer_logit") and own_lens:
        c.close(f.result("lens_logit")[:, -1], f.result("answer_logit"), 1e-4, "the last layer's lens is answer_logit")
    if f.has("logit_diff", "answer_logit"):
        logit = f.result("answer_logit")
        c.close(f.result("logit_diff"), logit[:, :1] - logit[:, 1:], 1e-5, "logit_diff is the difference")
    if f.has("answer_prob", "answer_logit"):
        # One row's log-probabilities are its logits less one number.
        p, logit = f.result("answer_prob").astype(np.float64), f.result("answer_logit").astype(np.float64)
        c.that(bool(((p >= 0) & (p <= 1)).all()), "answer_prob is in [0, 1]")
        off = np.log(np.maximum(p, 1e-300)) - logit
        far = (p > 1e-30).all(1)
        c.close(off[far], np.repeat(off[far, :1], off.shape[1], 1), 1e-3, "answer_prob follows answer_logit")
    if f.has("answer_rank"):
        rank = f.result("answer_rank")
        c.that(bool(((rank >= 0) & (rank < f.run.model_config["d_vocab"])).all()), "ranks are in [0, d_vocab)")
    if f.has("flags", "answer_rank"):
        bad = f.run.results["answer_rank"][f.rows][(f.run.results["flags"][f.rows] & 1) == 1]
        c.that(bool((bad == -1).all()), "flagged rows have rank -1")
    if f.has("top_tokens", "top_logits"):
        check_top(c, f)
    if f.has("token_logprobs"):
        check_log_probs(c, f)
    if f.has("logit_attrs", "answer_logit"):
        check_logit_attrs(c, f)
    if "logits" in f.run.hooks and f.has("answer_logit"):
        check_logits(c, f)


def check_interventions(c: Checks, f: File) -> None:
    """run.patch and run.ablate: what their grids hold beside each other and beside the tables."""
    run, patch = f.run, f.run.experiment.get("patch", {})
    for group, name, own in (("patch", "results/patch", run.patch), ("ablate", "results/ablate", run.ablate)):
        c.that(set(own) == set(run.file.get(name, {})), f"run.{group} has every grid: {own}")
        for grid in own:
            d, dims = own.dataset(grid), own.dims(grid)
            c.that(len(dims) == d.ndim and dims[0] == "prompt" and all(dims), f"run.{group}: {grid} is {dims}")
            own_rows = own[grid][f.rows]
            c.that(np.array_equal(run.tree[name][grid][f.rows].values, own_rows, equal_nan=True), f"tree: {name}/{grid}")
            if "set" in dims:
                c.that(len(run.labels("set")) == d.shape[1], f"labels of set: {run.labels('set')}")
                part = run.tree[name][grid].sel(set=run.labels("set")[-1])
                c.that(np.array_equal(part[f.rows].values, own_rows[:, -1], equal_nan=True), f"{grid} by the last set's name")
            if "pos" in dims:
                past = ~run.mask(f.rows).reshape([len(own_rows) if i == 0 else n if k == "pos" else 1
                                                  for i, (k, n) in enumerate(zip(dims, d.shape))])
                c.that(bool(np.isnan(own_rows[np.broadcast_to(past, own_rows.shape)]).all()), f"{grid}: NaN past the end")
    if not run.patch:
        return
    clean, corrupted = (next(x for k, x in run.patch.items() if k.startswith(run_name)) for run_name in ("clean_", "corrupted_"))
    if patch.get("metric", "logit_diff") == "logit_diff" and f.has("logit_diff"):
        c.that(np.array_equal(clean, run.results["logit_diff"], equal_nan=True), "clean_logit_diff is logit_diff")
    base = clean if patch.get("direction") == "noise" else corrupted
    other = run.tokens() != run.corrupted_tokens()
    first = np.argmax(other, 1)
    c.that(bool(other.any(1).all()), "every prompt differs from its corrupted one")
    for grid in run.patch:
        x, dims = run.patch[grid], run.patch.dims(grid)
        if grid + "_normalized" in run.patch:
            a, b = (y.reshape(len(y), *[1] * (len(dims) - 2), -1).astype(float) for y in (corrupted, clean))
            with np.errstate(invalid="ignore", divide="ignore"):
                share = np.where(a == b, np.nan, (x - a) / (b - a))
            c.close(run.patch[grid + "_normalized"].astype(float), share, 1e-5, f"{grid}_normalized")
        if dims[1:3] == ("layer", "pos") and len(dims) == 4 and grid + "_normalized" in run.patch:
            early = [x[i, :, :n] == base[i] for i, n in enumerate(first)]
            asked = [np.isnan(x[i, :, :n]) for i, n in enumerate(first)]
            c.that(all((e | a).all() for e, a in zip(early, asked)), f"{grid}: no effect before the first token that differs")


def check_top(c: Checks, f: File) -> None:
    top, logit = f.result("top_tokens"), f.result("top_logits")
    c.that(bool((np.diff(logit, axis=1) <= 0).all()), "top_logits descend")
    c.that(bool((top >= 0).all()) and all(len(set(row)) == len(row) for row in top), "top_tokens differ")
    if f.has("top_probs"):
        c.that(bool((np.diff(f.result("top_probs"), axis=1) <= 0).all()), "top_probs descend")
    if f.has("answer_rank", "answer_logit"):
        rank, answers = f.result("answer_rank"), f.run.prompts["answers"][f.rows][f.sound]
        wanted = f.result("answer_logit")
        rows, which = np.nonzero(rank < top.shape[1])
        # Of tokens with equal logits any may stand in the list: compare the logit at that rank.
        at = logit[rows, rank[rows, which]]
        c.close(at, wanted[rows, which], 1e-5, "an answer of rank r has the logit of place r")
        first, second = np.nonzero((rank == 0) & (logit[:, :1] > logit[:, 1:2])) if top.shape[1] > 1 else ([], [])
        c.that(np.array_equal(top[first, 0], answers[first, second]), "an answer of rank 0 is the first top token")


def check_log_probs(c: Checks, f: File) -> None:
    each = f.result("token_logprobs").astype(np.float64)
    n = f.run.lengths[f.rows][f.sound] - 1  # the last token's successor is not there
    there = np.arange(each.shape[1]) < n[:, None]
    c.that(np.array_equal(~np.isnan(each), there), "token_logprobs is NaN from the last token on, and only there")
    c.that(bool((each[there] <= 0).all()), "token_logprobs are at most 0")
    if f.has("loss"):
        mean = -np.where(there, each, 0).sum(1) / np.where(n > 0, n, np.nan)
        c.close(f.result("loss"), mean, 1e-6, "loss is the mean of -token_logprobs")


def check_logit_attrs(c: Checks, f: File) -> None:
    """Their sum over the components is answer_logit, in xarray by the labels; NaN past a prompt's end."""
    each = f.run.tree["results"]["logit_attrs"][f.rows].astype(np.float64)
    if "pos" in each.dims:
        there = each.pos < xarray.DataArray(f.length, dims="prompt")
        c.that(bool((each.notnull() == there)[f.sound].all()), "logit_attrs are NaN past a prompt's end, and only there")
        each = each.isel(pos=xarray.DataArray(f.run.prompts["read_pos"][f.rows], dims="prompt"))
    c.that(str(each.component.values[0]) == "embed" and str(each.component.values[-1]) == "unembed_bias",
           f"the labels of component: {each.component.values}")
    sums, size = each.sum("component", skipna=False), np.abs(each).sum("component")
    want = f.run.tree["results"]["answer_logit"][f.rows]
    c.that(bool((np.abs(sums - want) <= 1e-5 * size)[f.sound].all()), "logit_attrs sum to answer_logit")


def check_logits(c: Checks, f: File) -> None:
    run = f.run
    at = np.argmax(run.positions(f.rows) == run.prompts["read_pos"][f.rows][:, None], 1)
    has = (run.positions(f.rows) == run.prompts["read_pos"][f.rows][:, None]).any(1) & f.sound
    logits = run.cache("logits", rows=f.rows, dtype=np.float32)[np.arange(len(at)), at][has]
    answers = run.prompts["answers"][f.rows][has]
    got = np.take_along_axis(logits, answers, 1)
    want = run.results["answer_logit"][f.rows][has]
    c.close(got, want, f.tol(1e-5, 2e-3), "answer_logit is in logits")
    if not f.half:
        rank = (logits[:, None] > got[..., None]).sum(-1)
        c.that(np.array_equal(rank, run.results["answer_rank"][f.rows][has]), "answer_rank counts logits")


def check_reader(c: Checks, f: File) -> None:
    """The reader's own promises on this file."""
    run = f.run
    pick = [len(run) - 1, 0] if len(run) > 1 else [0]
    longest = int(run.lengths[pick].max())
    got = run.activation_cache(pick)
    c.that(set(got) == set(run.hooks) - {"logits"}, "activation_cache has every hook")
    for hook, x in got.items():
        dims, whole = run.dims(hook), run.dataset(hook)
        cut = {"pos", "key"} | ({"query"} if "slot_pos" not in run.prompts else set())
        want = (len(pick), *[longest if d in cut else n for d, n in zip(dims[1:], whole.shape[1:])])
        c.that(x.shape == want and x.dtype == np.float32, f"activation_cache: {hook} is {x.shape}, not {want}")
        last = whole[pick[0]][tuple(slice(n) for n in want[1:])]
        c.that(np.array_equal(x[0], last.astype(np.float32), equal_nan=True), f"activation_cache: rows of {hook}")
    if run.hooks:
        hook = run.hooks[0]
        want = np.stack([run.dataset(hook)[i] for i in (0, len(run) - 1, 0)])
        c.that(np.array_equal(run.cache(hook, rows=[0, -1, 0]), want, equal_nan=True), "rows in any order")
        c.that(np.array_equal(run.cache(hook, rows=0), want[0], equal_nan=True), "one row")
        c.that(run.cache(hook, rows=0, dtype=np.float64).dtype == np.float64, "dtype converts")
    with contextlib.suppress(h5lens.UnknownName):
        run.cache("resid_pots", 0)
        c.that(False, "an unknown name raises")
    check_order(c, run)
    check_filled(c, f)
    for pos in ("read", 0, -1, slice(-2, None), slice(None, 3), slice(None), slice(None, None, -2)):
        check_pos(c, f, pos)


def check_order(c: Checks, run: h5lens.Run) -> None:
    """The names as they arise in a forward pass, each block's after those of the block before."""
    block = re.compile(r"blocks\.(\d+)\.")
    numbers = [int(m[1]) for h in run.hooks if (m := block.match(h))]
    c.that(numbers == sorted(numbers), f"blocks in order: {numbers}")
    flow = ["hook_resid_pre", "ln1.hook_scale", "attn.hook_q", "attn.hook_pattern", "attn.hook_z", "hook_attn_out",
            "hook_resid_mid", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"]
    for i in set(numbers):
        there = [h.removeprefix(f"blocks.{i}.") for h in run.hooks if h.startswith(f"blocks.{i}.")]
        c.that([h for h in there if h in flow] == [h for h in flow if h in there], f"order in block {i}: {there}")
    outside = [h for h in run.hooks if not block.match(h)]
    known = ["hook_embed", "hook_pos_embed", "ln_final.hook_scale", "ln_final.hook_normalized", "logits"]
    c.that(outside == [h for h in known if h in outside] and run.hooks[:1] in ([], outside[:1])
           or "hook_embed" not in outside, f"order outside: {outside}")
    c.that(all(run.hooks.index(a) > run.hooks.index(b) for a, b in run.aliases.items()), "an alias comes after its name")


def check_filled(c: Checks, f: File) -> None:
    """fill stands past a prompt's end, 1 in scales, and nowhere else: a NaN that is data stays."""
    whole, filled = f.run.activation_cache(f.rows), f.run.activation_cache(f.rows, fill=0.0)
    for hook, x in filled.items():
        gone = past_end(f, hook, (len(f.length), *f.run.dataset(hook).shape[1:]))[:len(x)]
        gone = gone[tuple(slice(n) for n in x.shape)]
        want = np.where(gone, 1 if hook.endswith("hook_scale") else 0, whole[hook])
        c.that(np.array_equal(x, want, equal_nan=True), f"activation_cache(fill=0): {hook}")


def check_pos(c: Checks, f: File, pos: Any) -> None:
    """Each prompt's own positions, taken here one by one."""
    run, rows = f.run, [len(f.length) - 1, *range(min(9, len(f.length)))]
    at, length = run.positions(rows), run.lengths[rows]
    own: list[list[int]] = []  # which entries of the stored ones
    for row, n, a in zip(rows, length, at.tolist()):
        all_of_it = list(range(n))
        chosen = all_of_it[pos] if pos != "read" else int(run.prompts["read_pos"][row])
        own.append([a.index(p) for p in (chosen if isinstance(pos, slice) else [chosen]) if p in a])
    if not isinstance(pos, slice) and not all(own):
        with contextlib.suppress(IndexError):
            run.activation_cache(rows, pos=pos)
            c.that(False, f"pos={pos}: not stored, and no error")
        return
    got, entries = run.activation_cache(rows, pos=pos), max(map(len, own))
    told = run.positions(rows, pos)
    c.that(told.shape == (len(rows), entries) and all(
        told[i].tolist() == [at[i, e] for e in o] + [-1] * (entries - len(o)) for i, o in enumerate(own)),
        f"positions of {pos}")
    for hook, x in got.items():
        dims = list(run.dims(hook))
        axis = next(i for i, d in enumerate(dims) if d in ("pos", "slot", "query"))
        cut = {dims.index("key"): int(length.max())} if "key" in dims else {}
        good = x.ndim == len(dims) and x.shape[axis] == entries and x.dtype == np.float32
        for i, (row, o) in enumerate(zip(rows, own)):
            want = np.take(run.dataset(hook)[row], o, axis - 1).astype(np.float32)
            want = want[tuple(slice(cut.get(k)) for k in range(1, len(dims)))]
            mine = np.moveaxis(x[i], axis - 1, 0)
            good &= np.array_equal(np.moveaxis(mine[:len(o)], 0, axis - 1), want, equal_nan=True)
            good &= bool(np.isnan(mine[len(o):]).all())
        c.that(good, f"activation_cache(pos={pos}): {hook}")


# --- stacks of the residual stream ---------------------------------------------

def entries(run: h5lens.Run, row: int, pos: Any) -> list[int] | None:
    """Which entries of a stored row pos chooses; None where it is not stored."""
    n, at = int(run.lengths[row]), run.positions(row).tolist()
    if pos is None:
        return [i for i, p in enumerate(at) if p >= 0]
    chosen = list(range(n))[pos] if pos != "read" else int(run.prompts["read_pos"][row])
    got = [at.index(p) for p in (chosen if isinstance(pos, slice) else [chosen]) if p in at]
    return got if got or isinstance(pos, slice) else None


def normed(run: h5lens.Run, x: np.ndarray, scale: Any) -> np.ndarray:
    """One vector, over a scale."""
    ln = run.model_config["normalization_type"].startswith("LN")
    return (x - x.mean() if ln else x) / scale


@functools.cache
def one_row(run: h5lens.Run, name: str, row: int) -> np.ndarray:
    return run.cache(name, rows=row, dtype=np.float64)


def plain_stack(run: h5lens.Run, names: list[str], row: int, entry: int, norm: str | None) -> list[np.ndarray]:
    got = [one_row(run, n, row)[entry] for n in names]
    return [normed(run, x, one_row(run, f"{norm}.hook_scale", row)[entry]) for x in got] if norm else got


def plain_heads(run: h5lens.Run, last: int, row: int, entry: int, weights: dict[str, np.ndarray]) -> list[np.ndarray]:
    got = []
    for i in range(last):
        for h in range(run.model_config["n_heads"]):
            name, z = f"blocks.{i}.attn.hook_result", f"blocks.{i}.attn.hook_z"
            if name in run.hooks:
                got.append(one_row(run, name, row)[entry, h])
            else:
                got.append(one_row(run, z, row)[entry, h] @ weights[f"blocks.{i}.attn.W_O"][h])
    return got


def random_weights(run: h5lens.Run) -> dict[str, np.ndarray]:
    """No model's: the arithmetic is the same."""
    config, rng = run.model_config, np.random.default_rng(4)
    got = {f"blocks.{i}.attn.W_O": rng.normal(0, 1, (config["n_heads"], config["d_head"], config["d_model"]))
           for i in range(config["n_layers"])}
    got["unembed.W_U"] = rng.normal(0, 1, (config["d_model"], config["d_vocab"]))
    for i in range(config["n_layers"]):
        got[f"blocks.{i}.mlp.W_out"] = rng.normal(0, 1, (config.get("d_mlp", 8), config["d_model"]))
        got |= {f"blocks.{i}.{name}": rng.normal(0, 1, config["d_model"]) for name in ("attn.b_O", "mlp.b_out")}
    return {name: w.astype(np.float32) for name, w in got.items()}


def stack_cases(run: h5lens.Run, weights: dict[str, np.ndarray]) -> list[tuple[str, Callable[..., Any], list[str], Any]]:
    """Name, the call, its labels, and the naive definition (row, entry) → [component, d_model]."""
    n = run.model_config["n_layers"]
    embeds = [("embed", "hook_embed"), ("pos_embed", "hook_pos_embed")]
    embeds = embeds if run.model_config["positional_embedding_type"] == "standard" else embeds[:1]

    def written(last: int, mlp: bool, *kinds: str) -> list[tuple[str, str]]:
        got = [(f"{i}_{k}_out", f"blocks.{i}.hook_{k}_out") for i in range(last) for k in kinds]
        return got + ([(f"{last}_attn_out", f"blocks.{last}.hook_attn_out")] if mlp and "attn" in kinds else [])

    def stream(last: int, mid: bool, mlp: bool) -> list[tuple[str, str]]:
        got = []
        for i in range(last + 1):
            got += [(f"{i}_pre", f"blocks.{i}.hook_resid_pre") if i < n else ("final_post", f"blocks.{i - 1}.hook_resid_post")]
            got += [(f"{i}_mid", f"blocks.{i}.hook_resid_mid")] if mid and i < last or mlp and i == last else []
        return got

    cases: list[tuple[str, Callable[..., Any], list[str], Any]] = []

    def add(what: str, call: Callable[..., Any], parts: list[tuple[str, str]], norm: str | None) -> None:
        names = [name for _, name in parts]
        cases.append((what, call, [label for label, _ in parts], lambda r, e: plain_stack(run, names, r, e, norm)))

    for last, mlp, norm in ((n, False, "ln_final"), (1, False, "blocks.1.ln1"), (1, True, "blocks.1.ln2"),
                            (0, True, "blocks.0.ln2")):
        layer = -1 if last == n else last
        if f"{norm}.hook_scale" not in run.hooks:  # the fixture has no ln2
            norm = None
        for mode, kinds in (("all", ("attn", "mlp")), ("mlp", ("mlp",)), ("attn", ("attn",))):
            for incl in (True, False):
                more: dict[str, Any] = {"layer": layer, "mlp_input": mlp, "mode": mode, "incl_embeds": incl,
                                        "apply_ln": bool(norm)}
                add(f"decompose_resid {more}", lambda *a, more=more, **k: run.decompose_resid(*a, **more, **k),
                    (embeds if incl else []) + written(last, mlp, *kinds), norm)
        for mid in (False, True):
            more = {"layer": layer, "mlp_input": mlp, "incl_mid": mid, "apply_ln": bool(norm) and not mid}
            add(f"accumulated_resid {more}", lambda *a, more=more, **k: run.accumulated_resid(*a, **more, **k),
                stream(last, mid, mlp), None if mid else norm)
    heads = run.model_config["n_heads"]
    for last in (n, 1, 0):
        for rest in (False, True):
            labels = [f"L{i}H{h}" for i in range(last) for h in range(heads)] + ["remainder"] * rest
            whole = f"blocks.{last - 1}.hook_resid_post" if last else "blocks.0.hook_resid_pre"

            def naive(r: int, e: int, last: int = last, rest: bool = rest, whole: str = whole) -> list[np.ndarray]:
                got = plain_heads(run, last, r, e, weights)
                return got + ([one_row(run, whole, r)[e] - sum(got, np.zeros(()))] if rest else [])
            cases.append((f"stack_head_results {last} {rest}",
                          lambda *a, last=last, rest=rest, **k: run.stack_head_results(
                              *a, last if last < n else None, incl_remainder=rest, weights=weights, **k), labels, naive))
    return cases + part_cases(run, weights, embeds)


def part_cases(run: h5lens.Run, weights: dict[str, np.ndarray],
               embeds: list[tuple[str, str]]) -> list[tuple[str, Callable[..., Any], list[str], Any]]:
    """The same of neurons and of the whole decomposition."""
    cases: list[tuple[str, Callable[..., Any], list[str], Any]] = []
    n, heads, some = run.model_config["n_layers"], run.model_config["n_heads"], range(1, 7, 2)
    for last in (n, 1, 0):
        labels = [f"L{i}H{h}" for i in range(last) for h in range(heads)] + [f"{i}_mlp_out" for i in range(last)]
        parts = [f"blocks.{i}.hook_mlp_out" for i in range(last)] + [name for _, name in embeds]
        bias = sum((weights[f"blocks.{i}.attn.b_O"] for i in range(last)), np.zeros(run.model_config["d_model"]))

        def whole(r: int, e: int, last: int = last, parts: list[str] = parts, bias: np.ndarray = bias) -> list[np.ndarray]:
            return [*plain_heads(run, last, r, e, weights), *plain_stack(run, parts, r, e, None), bias]

        def neurons(r: int, e: int, last: int = last) -> list[np.ndarray]:
            return [one_row(run, f"blocks.{i}.mlp.hook_post", r)[e, k] * weights[f"blocks.{i}.mlp.W_out"][k]
                    for i in range(last) for k in some]
        cases.append((f"get_full_resid_decomposition {last}",
                      lambda *a, last=last, **k: run.get_full_resid_decomposition(*a, last, expand_neurons=False,
                                                                                  weights=weights, **k),
                      [*labels, *(label for label, _ in embeds), "bias"], whole))
        if "blocks.0.mlp.hook_post" in run.hooks:  # the fixture has none
            cases.append((f"stack_neuron_results {last}",
                          lambda *a, last=last, **k: run.stack_neuron_results(*a, last, neurons=slice(1, 7, 2),
                                                                              weights=weights, **k),
                          [f"L{i}N{k}" for i in range(last) for k in some], neurons))
    return cases


def check_stacks(c: Checks, f: File) -> None:
    """decompose_resid and its kin, by what they are defined to be, one vector at a time."""
    run = f.run
    need = {"hook_embed", "hook_pos_embed", "ln_final.hook_scale", "blocks.0.hook_resid_mid", "blocks.0.attn.hook_z",
            "blocks.0.hook_mlp_out"}
    if not need <= set(run.hooks) or run.model_config["parallel_attn_mlp"]:
        return
    weights = random_weights(run)
    rows = [len(f.length) - 1, int(f.length.argmin()), 0]
    for name, call, labels, naive in stack_cases(run, weights):
        for pos in (None, "read", -1, slice(-2, None)):
            own = [entries(run, r, pos) for r in rows]
            if any(o is None for o in own):
                continue
            got = call(rows, pos=pos)
            many = pos is None or isinstance(pos, slice)
            want = np.full((len(labels), len(rows), max(len(o or []) for o in own), run.model_config["d_model"]), np.nan)
            if pos is None and "slot_pos" in run.prompts:
                want = np.full((*want.shape[:2], run.positions(rows).shape[1], want.shape[3]), np.nan)
            for i, (r, o) in enumerate(zip(rows, own)):
                for k, e in enumerate(o or []):
                    for x, y in zip(want, naive(r, e)):
                        x[i, e if pos is None else k] = y
            want = want if many else want[:, :, 0]
            axes = ("component", "prompt", *(["pos"] if many else []), "d_model")
            c.that(got.labels == labels and got.axes == axes and got.dtype == np.float32, f"{name}: {got.labels}, {got.axes}")
            c.close(np.asarray(got), want, 1e-5, f"{name}, pos={pos}")
            if pos == "read":
                one = call(rows[0], pos=pos)
                same = np.array_equal(one, got[:, 0], equal_nan=True)
                c.that(one.axes == ("component", "d_model") and same, f"{name}: one row")
    check_attrs(c, f, rows, weights)
    check_stack(c, f, rows)


def check_attrs(c: Checks, f: File, rows: list[int], weights: dict[str, np.ndarray]) -> None:
    run = f.run
    w_u, answers = weights["unembed.W_U"].astype(np.float64), run.prompts["answers"][rows]
    for pos in (None, "read"):
        if any(entries(run, r, pos) is None for r in rows):
            continue
        stack = run.decompose_resid(rows, pos=pos)
        scale = run.activation_cache(rows, pos=pos, names="ln_final.hook_scale")["ln_final.hook_scale"].astype(np.float64)
        values = np.asarray(stack, np.float64).reshape(len(stack), len(rows), -1, w_u.shape[0])
        each = np.where(run.positions(rows, pos)[:, :values.shape[2]] < 0, -1, 5) if pos == "read" else \
            np.where(np.isnan(scale[..., 0]), -1, np.arange(values.shape[2]) % 7)
        for what, tokens, wrong in (("one", 3, 4), ("each prompt, two", answers[:, 0], answers[:, 1]),
                                    ("each prompt", answers[:, 0], None),
                                    ("each position", each if pos is None else answers[:, 1], None)):
            want = np.full(values.shape[:3], np.nan)
            for at in np.ndindex(want.shape):
                def of(ids: Any, at: tuple[int, ...] = at) -> int:
                    return int(ids if np.ndim(ids) == 0 else ids[at[1]] if np.ndim(ids) == 1 else ids[at[1:]])
                toward = w_u[:, of(tokens)] - (0 if wrong is None else w_u[:, of(wrong)])
                want[at] = np.nan if of(tokens) < 0 else normed(run, values[at], scale[at[1:]]) @ toward
            got = run.logit_attrs(stack, tokens, wrong, weights=weights)
            c.that(got.labels == stack.labels and got.axes == (stack.axes or ())[:-1], f"logit_attrs: {got.axes}")
            c.close(np.asarray(got), want.reshape(got.shape), 1e-5, f"logit_attrs, {what}, pos={pos}")
            bare = run.logit_attrs(np.array(stack), tokens, wrong, weights={"W_U": w_u}, rows=rows, pos=pos)
            c.that(np.allclose(bare, got, 1e-6, 1e-6, equal_nan=True), "logit_attrs of an array, W_U by its short name")
        own = run.apply_ln_to_stack(stack, recompute_ln=True)
        x = values - (values.mean(-1, keepdims=True) if run.model_config["normalization_type"].startswith("LN") else 0)
        want = x / np.sqrt((x * x).mean(-1, keepdims=True) + run.model_config["eps"])
        c.close(np.asarray(own), want.reshape(own.shape), 1e-5, "apply_ln_to_stack, recomputed")
        c.close(np.asarray(run.apply_ln_to_stack(stack)), np.asarray(run.decompose_resid(rows, pos=pos, apply_ln=True)),
                1e-7, "apply_ln_to_stack is apply_ln")


def check_stack(c: Checks, f: File, rows: list[int]) -> None:
    """What a Stack keeps of its labels."""
    run = f.run
    stack = run.accumulated_resid(rows)
    labels = stack.labels or []
    for part, want in ((stack[1:], labels[1:]), (stack[[0, -1]], [labels[0], labels[-1]]), (2 * stack, labels),
                       (stack - stack[0], labels), (stack[np.arange(len(labels)) > 0], labels[1:]), (stack[::-1], labels[::-1]),
                       (stack[-1], None), (stack[:, :1], None), (stack.T, None), (stack.sum(0), None), (stack.copy(), None)):
        c.that(part.labels == want, f"labels {part.labels}, not {want}")
    c.that(stack[-1].axes == stack.axes[1:] and isinstance(stack[:0].max(initial=0), np.floating), "axes")
    whole = run.apply_ln_to_stack(stack)
    part = run.apply_ln_to_stack(stack[[1, 0]] * 2)
    c.that(part.labels == [labels[1], labels[0]] and np.allclose(part, 2 * whole[[1, 0]], 1e-6, 1e-6, equal_nan=True),
           "components of a stack, scaled")
    frame = stack.to_xarray()
    c.that(frame.dims == stack.axes and list(frame.component.values) == labels and frame.prompt.values.tolist() == rows
           and np.array_equal(frame.position.values, run.positions(rows, None)[:, :stack.shape[2]])
           and np.array_equal(frame.sel(component=labels[-1]).values, np.asarray(stack[-1]), equal_nan=True), "to_xarray")
    one = run.decompose_resid(rows[0])
    c.that(one.to_xarray().prompt.item() == rows[0] and one[0].to_xarray().dims == ("pos", "d_model"), "to_xarray, one row")


def check_text(c: Checks, f: File, model: Path) -> None:
    run = f.run
    parts = [model / "config.json", model / "model.safetensors"]
    if all(part.exists() for part in parts):
        whole = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
        c.that(run.attr("sha256_model") == whole, "sha256_model is the model's")
    bos = bool(run.experiment["data"].get("prepend_bos", True))
    pieces = h5lens.load_pieces(model)
    for row in range(f.rows.stop):
        ids = run.tokens(row)[bos:run.lengths[row]]
        text = b"".join(pieces[int(t)] for t in ids).decode(errors="replace")
        if text != run.text(row):
            c.that(False, f"row {row}: the tokens read {text!r}, not {run.text(row)!r}")
            return
    c.that(True, "")
    c.that("".join(run.str_tokens(0, model)).endswith(str(run.text(0))), "str_tokens")
    if (model / "model.safetensors").exists():
        check_attribution(c, f, model)


def tensor(path: Path, name: str) -> np.ndarray:
    """A float32 tensor of a safetensors file."""
    with path.open("rb") as file:
        head = int.from_bytes(file.read(8), "little")
        info = json.loads(file.read(head))[name]
        first, past = info["data_offsets"]
        file.seek(8 + head + first)
        return np.frombuffer(file.read(past - first), "<f4").reshape(info["shape"]).astype(np.float64)


def check_attribution(c: Checks, f: File, model: Path) -> None:
    """TransformerLens's decompose_resid and logit_attrs on activation_cache, in NumPy: a GPT-2's logit differences are
    the sum over what writes to the residual stream, prompts of different lengths each at its read position."""
    run = f.run
    names = ["hook_embed", "hook_pos_embed"] + [f"blocks.{i}.hook_{k}_out" for i in range(run.model_config["n_layers"])
                                                for k in ("attn", "mlp")]
    gain, bias, w_e = (tensor(model / "model.safetensors", f"transformer.{n}")
                       for n in ("ln_f.weight", "ln_f.bias", "wte.weight"))
    answers, want = run.prompts["answers"][f.rows], run.results["logit_diff"][f.rows, 0].astype(np.float64)
    direction = w_e[answers[:, 0]] - w_e[answers[:, 1]]

    def sums(cache: dict[str, np.ndarray], take: Any) -> np.ndarray:
        stack = np.stack([cache[n] for n in names]).astype(np.float64)
        stack = (stack - stack.mean(-1, keepdims=True)) / cache["ln_final.hook_scale"]
        c.that(not np.isnan(stack).any(), "a stack of filled activations over scales has no NaN")
        return (stack[:, np.arange(len(want)), take] * (gain * direction)).sum((0, -1)) + direction @ bias

    chosen = run.activation_cache(f.rows, pos="read", names=[*names, "ln_final.hook_scale"])
    c.that(len(set(f.length.tolist())) > 1, "the prompts have different lengths")
    c.close(sums(chosen, -1), want, f.tol(1e-5, 2e-3), "logit_attrs sum to logit_diff, pos='read'")
    weights = {"unembed.W_U": (gain[:, None] * w_e.T).astype(np.float32)}
    attrs = run.logit_attrs(run.decompose_resid(f.rows, pos="read"), *answers[:, :2].T, weights=weights)
    total = np.asarray(attrs).sum(0, dtype=np.float64) + direction @ bias
    c.close(total, want, f.tol(1e-5, 2e-3), "the reader's logit_attrs sum to logit_diff")
    filled = run.activation_cache(f.rows, fill=0.0, names=[*names, "ln_final.hook_scale"])
    at = np.argmax(run.positions(f.rows) == run.prompts["read_pos"][f.rows, None], 1)
    c.close(sums(filled, at), want, f.tol(1e-5, 2e-3), "logit_attrs sum to logit_diff, filled")


def check(path: Path, model: Path | None, n_rows: int = 64, stacks: bool = True) -> Checks:
    c = Checks()
    with h5lens.open_run(path) as run:
        f = File(run, n_rows)
        subjects = [check_opens, check_about, check_prompts, check_cache, check_sums, check_tables, check_interventions, check_reader]
        subjects += [check_stacks] if stacks else []
        for subject in subjects:
            try:
                subject(c, f)
            except Exception:
                c.that(False, f"{subject.__name__}: {traceback.format_exc()}")
        if model:
            check_text(c, f, model)
    return c


# --- the checks' own test -------------------------------------------------------

def damage(short: int) -> list[tuple[str, Callable[[h5py.File], None], str]]:
    """Ways to spoil a good file, and a word of the failure that each must give. short: the row of a prompt
    that is not the longest."""
    def put(name: str, at: tuple[int, ...], value: float) -> Callable[[h5py.File], None]:
        return lambda h: h[name].__setitem__(at, value)

    def attr(name: str, value: object) -> Callable[[h5py.File], None]:
        return lambda h: h.attrs.__setitem__(name, value)

    b = "cache/blocks.1."
    return [
        ("a changed number", put(b + "hook_mlp_out", (0, 1, 2), 7.0), "digests"),
        ("a changed number, sums", put(b + "hook_mlp_out", (0, 1, 2), 7.0), "is a sum"),
        ("a lost digest", lambda h: h[b + "hook_mlp_out"].attrs.__delitem__("sha256"), "no digest"),
        ("a changed text", put("prompts/text", (0,), "x"), "prompts/text"),
        ("a changed attribute", attr("blas", "another"), '\'/\': "names or attributes differ'),
        ("a changed attribute of a dataset", lambda h: h["prompts/id"].attrs.__setitem__("units", "x"),
         '\'/\': "names'),
        ("a deleted dataset", lambda h: h.__delitem__("results/loss"), '\'/\': "names or attributes differ'),
        ("an alias of another", lambda h: h.move(b + "hook_resid_pre", b + "hook_mlp_in"), '\'/\': "names or'),
        ("no digest of the file", lambda h: h.attrs.__delitem__("sha256"), "'/': 'has no digest"),
        ("data past the end", put(b + "hook_attn_out", (short, -1, 0), 1.0), "NaN exactly"),
        ("a hole", put(b + "hook_attn_out", (0, 1, 0), np.nan), "NaN exactly"),
        ("a token past the end", put("prompts/tokens", (short, -1), 3), "tokens are -1"),
        ("an acausal pattern", put(b + "attn.hook_pattern", (0, 0, 1, 2), 0.1), "causal"),
        ("a pattern of the wrong sum", put(b + "attn.hook_pattern", (0, 0, 1, 0), 3.0), "sum to 1"),
        ("a wrong rank", put("results/answer_rank", (0, 0), 77), "answer_rank"),
        ("a wrong difference", put("results/logit_diff", (0, 0), 99.0), "the difference"),
        ("a wrong probability", put("results/answer_prob", (0, 0), 1.0), "answer_prob"),
        ("a probability past the end", put("results/token_logprobs", (short, -1), -1.0), "token_logprobs is NaN"),
        ("a probability above 1", put("results/token_logprobs", (0, 0), 0.5), "at most 0"),
        ("a wrong loss", put("results/loss", (0,), 99.0), "loss is the mean"),
        ("no scale", lambda h: h[b + "hook_mlp_out"].dims[0].detach_scale(h["prompt"]), "dimension scale"),
        ("half a digest", attr("sha256_tokenizer", "1" * 32), "sha256_tokenizer"),
        ("a newer schema", attr("h5lens_schema", 3), "schema 3; this reader knows up to 2"),
        ("another kind of digest", attr("digest", "xxh3"), "digests are of the kind 'xxh3'"),
        ("no schema", lambda h: h.attrs.__delitem__("h5lens_schema"), "not a file of h5lens"),
    ]


def self_test() -> Checks:
    import reader_fixture
    c = Checks()
    with tempfile.TemporaryDirectory() as tmp:
        for kind in ({}, {"schema": 1}, {"f16": True}, {"slots": True}, {"n_rows": 1}, {"patched": True}):
            path = Path(tmp) / ("_".join(kind) + "good.h5")
            model = reader_fixture.make(path, **kind)
            found = check(path, model)
            c.that(found.failed == 0 and found.passed > 100, f"the file of {kind} is good")
        good = Path(tmp) / "good.h5"
        with h5lens.open_run(good) as run:
            short = int(run.lengths.argmin())
        for what, spoil, word in damage(short):
            bad = Path(tmp) / "bad.h5"
            shutil.copy(good, bad)
            with h5py.File(bad, "r+") as h:
                spoil(h)
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                try:
                    check(bad, good.with_suffix(".model"), stacks=False)
                except h5lens.H5LensError as e:
                    print(e)
            c.that(word in said.getvalue(), f"{what}: no failure about '{word}', only: {said.getvalue()[:400]}")
        check_damaged_grids(c, Path(tmp) / "patchedgood.h5")
        check_errors(c, Path(tmp))
        check_lookups(c, good)
        check_stack_errors(c, Path(tmp))
        check_digest_kinds(c, Path(tmp))
        check_file_digest(c, Path(tmp))
        check_nan_in_prompt(c, good)
        check_other_tokenizer(c, good)
    check_names(c)
    check_str_tokens(c)
    check_saved(c)
    check_hook_order(c)
    check_lens_config(c)
    return c


def check_damaged_grids(c: Checks, good: Path) -> None:
    """As damage(), of a file with interventions; and names of grids that are not there."""
    bad = good.with_name("patchedbad.h5")
    with h5lens.open_run(good) as run:
        short = int(run.lengths.argmin())
        for grids, name, words in ((run.patch, "resid_pr", ["grid of patching", "resid_pre"]),
                                   (run.ablate, "set", ["grid of ablation", "sets"])):
            try:
                c.that(False, f"{grids[name]}")
            except KeyError as e:
                c.that(all(w in str(e) for w in words), f"{words} in: {e}")
        c.that(run.labels("set") == ["movers", "others"] and run.labels("pos") == [] and run.labels("none") == [], "labels")
        c.that("patch" in repr(run) and "ablate" in repr(run), repr(run))
    for name, at, value, word in (("patch/resid_pre", (0, 0, 0, 0), 9.0, "before the first token"),
                                  ("patch/resid_pre", (short, 0, -1, 0), 9.0, "resid_pre: NaN past the end"),
                                  ("patch/attn_head_out_all_pos_normalized", (0, 0, 1, 0), 9.0, "_normalized"),
                                  ("patch/clean_logit_diff", (0, 0), 9.0, "clean_logit_diff is logit_diff"),
                                  ("ablate/sets", (0, 0, 0), 9.0, "digests")):
        shutil.copy(good, bad)
        with h5py.File(bad, "r+") as h:
            h[f"results/{name}"][at] = value
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            check(bad, good.with_suffix(".model"), stacks=False)
        c.that(word in said.getvalue(), f"{name}: no failure about '{word}', only: {said.getvalue()[:400]}")
    with h5lens.open_run(good.with_name("good.h5")) as run:
        for grids, words in ((run.patch, ["patched nothing", "patch.grids"]), (run.ablate, ["ablate.sets"])):
            try:
                c.that(False, f"{grids['resid_pre']}")
            except KeyError as e:
                c.that(all(w in str(e) for w in words), f"{words} in: {e}")


def check_errors(c: Checks, tmp: Path) -> None:
    (tmp / "text.h5").write_text("not HDF5")
    for name, kind in (("none.h5", FileNotFoundError), ("text.h5", h5lens.H5LensError)):
        try:
            h5lens.open_run(tmp / name)
            c.that(False, f"{name} opens")
        except kind as e:
            c.that(name in str(e), f"the error names {name}: {e}")
    with h5lens.open_run(tmp / "good.h5") as run:
        for name, near in (("blocks.1.hook_resid_pots", "blocks.1.hook_resid_post"), ("logit_dif", "logit_diff")):
            try:
                _ = run.cache(name) if "." in name else run.results[name]
                c.that(False, f"{name} is found")
            except KeyError as e:
                c.that(near in str(e), f"the error for {name} gives {near}: {e}")
    run.close()  # a second time
    c.that("closed" in repr(run) and len(run) == len(run.lengths), "a closed run knows its name and length")
    for name, use in {
        "cache": lambda: run.cache("resid_post", 0), "activation_cache": lambda: run.activation_cache([0]),
        "results": lambda: run.results["logit_diff"], "columns": lambda: run.columns, "attr": lambda: run.attr("bos"),
        "experiment": lambda: run.experiment, "hooks": lambda: run.hooks, "tokens": lambda: run.tokens(0),
        "mask": run.mask, "positions": run.positions, "str_tokens": lambda: run.str_tokens(0), "verify": run.verify,
        "decompose_resid": run.decompose_resid, "stack_head_results": run.stack_head_results,
        "tree": lambda: run.tree, "dataset": lambda: run.dataset("hook_embed"), "lens_layers": lambda: run.lens_layers,
    }.items():
        try:
            use()
            c.that(False, f"{name} of a closed run")
        except ValueError as e:
            c.that("the run is closed" in str(e), f"{name} of a closed run: {e}")


def check_names(c: Checks) -> None:
    """TransformerLens's own examples, and the corners of its rules."""
    for short, full in {
        ("k", 6, "a"): "blocks.6.attn.hook_k", ("pre", 2): "blocks.2.mlp.hook_pre", ("embed",): "hook_embed",
        ("normalized", 27, "ln2"): "blocks.27.ln2.hook_normalized", ("k6",): "blocks.6.attn.hook_k",
        ("scale4ln1",): "blocks.4.ln1.hook_scale", ("pre5",): "blocks.5.mlp.hook_pre",
        ("normalized",): "ln_final.hook_normalized", ("resid_post", 5): "blocks.5.hook_resid_post",
        ("attn", 3): "blocks.3.attn.hook_pattern", ("attn_logits", 0): "blocks.0.attn.hook_attn_scores",
        ("mlp_post", 1): "blocks.1.mlp.hook_post", ("ln_final.hook_scale",): "ln_final.hook_scale",
        ("expert_weights", 1, "mlp"): "blocks.1.mlp.hook_expert_weights", ("mlp.hook_post", 1): "blocks.1.mlp.hook_post",
        ("expert_indices", 1): "blocks.1.mlp.hook_expert_indices", ("hook_resid_post", 1): "blocks.1.hook_resid_post",
    }.items():
        c.that(h5lens.act_name(*short) == full, f"{short} is {full}, not {h5lens.act_name(*short)}")


def check_lookups(c: Checks, good: Path) -> None:
    """What is asked for wrongly is told in words that help."""
    with h5lens.open_run(good) as run:
        for kind, use, words in (
            (TypeError, lambda: run.cache("resid_post", 1, slice(0, 4)), ["layer_type", "rows=slice(0, 4, None)"]),
            (TypeError, lambda: run.cache("resid_post", slice(0, 4)), ["layer cannot be", "rows=slice(0, 4, None)"]),
            (TypeError, lambda: run.cache(5), ["name cannot be 5"]),
            (KeyError, lambda: run.cache("resid_post"),
             ["each layer", "('resid_post', 0)", "blocks.0.hook_resid_post", "0, 1, 2"]),
            (KeyError, lambda: run.cache("scale", layer_type="ln1"), ["each layer", "blocks.0.ln1.hook_scale"]),
            (KeyError, lambda: run.cache("resid_post", 3), ["no layer 3", "0 to 2"]),
            (KeyError, lambda: run.cache("resid_post", -4), ["no layer -4", "-3 to -1"]),
            (KeyError, lambda: run.cache("resid_pst", 1), ["blocks.1.hook_resid_post"]),
            (KeyError, lambda: run.activation_cache(names=["resid_pst0"]), ["blocks.0.hook_resid_post"]),
            (IndexError, lambda: run.activation_cache(pos=90), ["tokens: no position 90"]),
            (IndexError, lambda: run.activation_cache(pos=-99), ["no position -99"]),
            (TypeError, lambda: run.activation_cache(pos="last"), ["'last'"]),
            (TypeError, lambda: run.activation_cache(pos=[0, 1]), ["[0, 1]"]),
            (IndexError, lambda: run.cache("resid_post", 0, rows=len(run)), ["row"]),
        ):
            try:
                use()
                c.that(False, f"no error about {words}")
            except kind as e:
                c.that(all(w in str(e) for w in words), f"{words} in: {e}")
        c.that(np.array_equal(run.cache("resid_post", np.int64(-1)), run.cache("resid_post", "2"), equal_nan=True), "the last layer")
        c.that(run.activation_cache([], pos="read")["hook_embed"].shape[:2] == (0, 1), "no rows")


def check_stack_errors(c: Checks, tmp: Path) -> None:
    """What a stack cannot be made of: which hooks to store, in the program's own flag."""
    poor = tmp / "poor.h5"
    shutil.copy(tmp / "good.h5", poor)
    with h5py.File(poor, "r+") as h:
        for name in ("blocks.1.hook_attn_out", "blocks.2.hook_attn_out", "hook_pos_embed", "ln_final.hook_scale",
                     "blocks.0.attn.hook_z", "blocks.1.hook_resid_pre"):
            del h["cache/" + name]
    with h5lens.open_run(poor) as run:
        c.that(run.accumulated_resid(0).labels == ["0_pre", "1_pre", "2_pre", "final_post"], "resid_pre 1 by resid_post 0")
    with h5lens.open_run(tmp / "good.h5") as run, h5lens.open_run(poor) as bad, \
            h5lens.open_run(tmp / "slotsgood.h5") as slots:
        w, stack = random_weights(run), run.decompose_resid([0, 1])
        c.that(bad.decompose_resid(0, mode="mlp", incl_embeds=False).labels == [f"{i}_mlp_out" for i in range(3)],
               "what is not asked for may be missing")
        for kind, use, words in (
            (KeyError, bad.decompose_resid, ["hook_pos_embed and 2 more", "--hooks 'hook_pos_embed,blocks.*.hook_attn_out'"]),
            (KeyError, lambda: bad.decompose_resid(mode="mlp", incl_embeds=False, apply_ln=True), ["'ln_final.hook_scale'"]),
            (KeyError, lambda: bad.stack_head_results(weights=w),
             ["hook_result or blocks.0.attn.hook_z", "'blocks.*.attn.hook_result'"]),
            (KeyError, lambda: run.get_full_resid_decomposition(weights=w), ["stack_neuron_results needs blocks.0.mlp.hook_post"]),
            (KeyError, lambda: run.get_full_resid_decomposition(expand_neurons=False, weights={
                k: v for k, v in w.items() if "b_O" not in k}), ["blocks.0.attn.b_O"]),
            (KeyError, lambda: bad.logit_attrs(stack, 1, weights=w, rows=[0, 1]), ["logit_attrs needs ln_final.hook_scale"]),
            (h5lens.H5LensError, run.stack_head_results, ["from hook_z", "blocks.0.attn.W_O", "weights=h5lens.open_weights"]),
            (h5lens.H5LensError, lambda: run.logit_attrs(stack, 1), ["unembed.W_U", "h5lens weights"]),
            (KeyError, lambda: run.logit_attrs(stack, 1, weights={"unembed.W_E": 1}), ["no weight 'unembed.W_U'", "unembed.W_E"]),
            (h5lens.H5LensError, lambda: run.logit_attrs(stack, 1, weights=w | {"ln_final.w": np.full(32, 2)}), ["fold_ln"]),
            (h5lens.H5LensError, lambda: bad.logit_attrs(stack, 1, weights=w), ["this stack is of", "good.h5"]),
            (ValueError, lambda: run.logit_attrs(stack, [1, 2, 3], weights=w), ["tokens are [3]", "['prompt', 'pos']"]),
            (ValueError, lambda: run.logit_attrs(stack, 1, [1, 2], weights=w), ["incorrect_tokens [2]"]),
            (ValueError, lambda: run.logit_attrs(np.array(stack), 1, weights=w), ["rows= and pos="]),
            (ValueError, lambda: run.logit_attrs(stack[..., :4], 1, weights=w), ["rows= and pos="]),
            (ValueError, lambda: run.logit_attrs(stack, 1, weights={"W_U": np.ones((200, 32))}),
             ["W_U is [200, 32], not [32, 200]"]),
            (ValueError, lambda: run.stack_head_results(weights={**w, "blocks.1.attn.W_O": np.ones((4, 8))}),
             ["blocks.1.attn.W_O is (4, 8)"]),
            (IndexError, lambda: run.logit_attrs(stack, 200, weights=w), ["no token 200"]),
            (TypeError, lambda: run.logit_attrs(stack, " Mary", weights=w), ["' Mary'", "answers"]),
            (KeyError, lambda: run.decompose_resid(0, 4), ["no layer 4", "0 to 2", "3 or -1"]),
            (KeyError, lambda: run.decompose_resid(0, -2), ["no layer -2"]),
            (ValueError, lambda: run.decompose_resid(mlp_input=True), ["mlp_input is for layers 0 to 2"]),
            (ValueError, lambda: run.accumulated_resid(layer=3, mlp_input=True), ["mlp_input is for layers 0 to 2"]),
            (ValueError, lambda: run.decompose_resid(mode="heads"), ["'heads'"]),
            (TypeError, lambda: run.decompose_resid(pos="last"), ["'last'"]),
            (IndexError, lambda: run.decompose_resid(pos=-99), ["no position -99"]),
            (IndexError, lambda: slots.decompose_resid(0, pos=1), ["position 1 is not stored, only 0,", "--positions"]),
            (ValueError, stack.T.to_xarray, ["lost its labels"]),
        ):
            try:
                use()
                c.that(False, f"no error about {words}")
            except kind as e:
                c.that(all(word in str(e) for word in words), f"{words} in: {e}")
        for rows, pos in (([], "read"), ([], None), (slice(0, 0), slice(-1, None))):
            c.that(run.decompose_resid(rows, pos=pos).shape[:2] == (8, 0), "no rows")


def check_digest_kinds(c: Checks, tmp: Path) -> None:
    """A digest of another kind, or without its package, cannot be verified, and the data can be read."""
    import reader_fixture
    old, bad = tmp / "sha256.h5", tmp / "kind.h5"
    reader_fixture.make(old, digest="sha256")
    for source, kind, fine in ((tmp / "good.h5", "xxh3-128", True), (tmp / "good.h5", b"xxh3-128", True),
                               (old, "sha256", True), (old, b"sha256", True), (old, "xxh3", False), (old, 7, False)):
        shutil.copy(source, bad)
        with h5py.File(bad, "r+") as h:
            h.attrs["digest"] = kind
            h.attrs["sha256"] = h5lens.file_digest(h)
        with h5lens.open_run(bad) as run:
            c.that(run.cache("resid_post", 0).size > 0, f"digest {kind!r}: reading works")
            try:
                c.that(bool(run.verify()) and fine, f"digest {kind!r}: verified")
            except h5lens.H5LensError as e:
                c.that(not fine and f"'{kind}'" in str(e) and "h5lens verify" in str(e), f"digest {kind!r}: {e}")
    with unittest.mock.patch.dict(sys.modules, {"xxhash": None}):  # not installed
        for path, fine in ((old, True), (tmp / "good.h5", False)):
            with h5lens.open_run(path) as run:
                try:
                    c.that(run.cache("resid_post", 0).size > 0 and bool(run.verify()) and fine, f"{path.name}, no xxhash")
                except ImportError as e:
                    c.that(not fine and "pip install xxhash" in str(e), f"{path.name}, no xxhash: {e}")


def check_file_digest(c: Checks, tmp: Path) -> None:
    """The program's own files of schema 1: the digest of "/" matches, and finds what changed; in a shard too."""
    golden = HERE.parents[1] / "tests" / "golden" / "schema1"
    shutil.copy(golden / "finished.h5", tmp)
    shutil.copy(golden / "sweep.h5", tmp)
    shutil.copytree(golden / "sweep.shards", tmp / "sweep.shards")

    def deleted(path: Path) -> None:
        with h5py.File(path, "r+") as h:
            del h["results/logit_diff"]

    def attribute(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(b"avx2", b"avx3"))

    for name, spoiled, where in (("finished.h5", "finished.h5", "/"), ("sweep.h5", "sweep.h5", "/"),
                                 ("sweep.h5", "sweep.shards/00001.h5", "sweep.shards/00001.h5: /")):
        with h5lens.open_run(tmp / name) as run:
            found = run.verify()
            c.that(bool(found) and where in found.matched, f"{name} of schema 1, {where}: {found.wrong}")
        for spoil in (attribute, deleted)[:2 if name == spoiled else 1]:  # of a shard, the size is looked at first
            before = (tmp / spoiled).read_bytes()
            spoil(tmp / spoiled)
            with h5lens.open_run(tmp / name) as run:
                wrong = run.verify().wrong
                c.that(list(wrong) == [where], f"{spoiled}, {spoil.__name__}: {wrong}")
            (tmp / spoiled).write_bytes(before)


def check_nan_in_prompt(c: Checks, good: Path) -> None:
    """fill is for what lies past the end: a NaN that the model computed stays."""
    bad = good.with_name("nan.h5")
    shutil.copy(good, bad)
    with h5py.File(bad, "r+") as h:
        h["cache/blocks.1.hook_mlp_out"][0, 1, 2] = np.nan
    with h5lens.open_run(bad) as run:
        x = run.activation_cache(names=["blocks.1.hook_mlp_out"], fill=0.0)["blocks.1.hook_mlp_out"]
        c.that(np.isnan(x[0, 1, 2]) and np.isnan(x).sum() == 1, "a NaN within the prompt is not filled")


def check_str_tokens(c: Checks) -> None:
    """SentencePiece's tokens as to_str_tokens shows them (scripts/check_transformer_lens.py compares all), and in a row."""
    data = HERE.parent / "unit" / "data" / "tokenizer_sp"
    for folder, alone in (("llama", ["<s>", "W", "Mary", "\n", "", "\ufffd", "to"]),
                          ("gemma", ["<s>", "W", " Mary", "\n", " ", "\ufffd", " to"]),
                          ("always", ["<s>", None, "Mary", None, "", None, "to"])):
        ids = json.loads((data / folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        pieces = "<s>", "<0x57>", "▁Mary", "<0x0A>", "▁", "<0xE6>", "▁to"
        texts = b"<s>", b"W", b" Mary", b"\n", b" ", b"\xe6", b" to"
        for piece, want, text in zip(pieces, alone, texts, strict=True):
            if want is not None:
                got = h5lens.load_pieces(data / folder, alone=True)[ids[piece]].decode(errors="replace")
                c.that(got == want, f"{folder}: {piece} is shown as {got!r}, not {want!r}")
                got = h5lens.load_pieces(data / folder)[ids[piece]]
                c.that(got == text, f"{folder}: {piece} in a text is {got!r}, not {text!r}")


    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "tokenizer.json"
        for model, decoder, words in (({"type": "Unigram", "vocab": [["<unk>", 0]]}, None, "Unigram"),
                                      ({"vocab": {"a": 0}}, {"type": "WordPiece"}, "WordPiece"),
                                      ({"vocab": {"a": 0}}, {"type": "Replace", "pattern": {"Regex": "x"}}, "Regex")):
            path.write_text(json.dumps({"model": model, "decoder": decoder}), encoding="utf-8")
            try:
                c.that(False, f"{words} is read as {h5lens.load_pieces(path)}")
            except h5lens.H5LensError as e:
                c.that(words in str(e), f"{words} in: {e}")


def warned(use: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What it gives, and the texts of its warnings, which are the reader's own and point at the caller."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = use()
    return got, [str(w.message) for w in told if w.category is h5lens.H5LensWarning and w.filename == __file__]


def check_other_tokenizer(c: Checks, good: Path) -> None:
    """A tokenizer that is not the run's: gone, moved, changed, without a token."""
    model, moved = good.with_suffix(".model"), good.with_name("moved")

    def told(what: str, kind: type[Exception], words: list[str], tokenizer: Path | None = None) -> None:
        try:
            with h5lens.open_run(good) as run:
                c.that(False, f"{what}: {run.str_tokens(0, tokenizer)}")
        except kind as e:
            c.that(all(w in str(e) for w in words), f"{what}: {words} in: {e}")

    with h5lens.open_run(good) as run:
        want, ids = run.str_tokens(0), run.tokens(0)
        model.rename(moved)
        told("gone", FileNotFoundError, [str(model), "tokenizer="])
        for where in (moved, moved / "tokenizer.json"):
            c.that(warned(lambda: run.str_tokens(0, where)) == (want, []), f"moved: {where}")
        c.that(run.str_tokens(0) == want, "read once")
    moved.rename(model)
    before = (model / "tokenizer.json").read_text(encoding="utf-8")
    spec = json.loads(before)
    del spec["model"]["vocab"][next(t for t, i in spec["model"]["vocab"].items() if i == ids[1])]
    (model / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    told("another file", h5lens.H5LensError, [str(model), "sha256_tokenizer", str(good), "tokenizer="])
    with h5lens.open_run(good) as run:
        got, words = warned(lambda: run.str_tokens(0, model))
        c.that(got == want and len(words) == 1 and "sha256_tokenizer" in words[0], f"given, it is a warning: {words}")
        c.that(warned(lambda: run.str_tokens(0, model)) == (want, []), "one warning")
        try:
            c.that(False, f"after it, not given: {run.str_tokens(0)}")
        except h5lens.H5LensError as e:
            c.that("sha256_tokenizer" in str(e), f"after it, not given: {e}")
    (model / "tokenizer.json").unlink()
    told("no tokenizer", h5lens.H5LensError, [str(model), "tokenizer="])
    (model / "tokenizer_config.json").unlink()
    (model / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    words = [str(model), f"token {ids[1]},", "row 0", "tokenizer="]
    told("a lost token", h5lens.H5LensError, words, model / "tokenizer.json")
    (model / "tokenizer.json").write_text(before, encoding="utf-8")


def check_saved(c: Checks) -> None:
    """Folders as transformers 4 and 5 save them: the digest is the program's, and every token has a text."""
    data = HERE.parents[1] / "tests" / "unit" / "data" / "saved"
    pieces = h5lens.load_pieces(data / "tf4" / "qwen2-slow", alone=True)  # vocab.json and tokenizer_config.json
    want = [b"<|endoftext|>", b"<|im_end|>", b"<|im_start|>", b"<tool>"]
    c.that([pieces[i] for i in (0, 290, 291, 292)] == want, "qwen2-slow: the tokens of added_tokens_decoder")
    program = Path(os.environ.get("H5LENS", HERE.parents[1] / "build" / "h5lens")).resolve()
    with tempfile.TemporaryDirectory() as tmp:
        for name in ("vocab.json", "added_tokens.json"):
            shutil.copy(data / "tf4" / "qwen2-slow" / name, tmp)
        pieces = h5lens.load_pieces(tmp, alone=True)
        c.that([pieces[i] for i in (290, 291, 292)] == want[1:], "qwen2-slow: the tokens of added_tokens.json")
        if not program.exists():
            print("skipped: digests of tokenizers: no program")
            return
        csv, out = Path(tmp) / "p.csv", Path(tmp) / "out.h5"
        csv.write_text("prompt\na<tool><|im_end|>\n", encoding="utf-8")
        folders = [d for d in sorted(data.glob("tf*/*")) if not (d / "refused").exists()]
        c.that(len(folders) == 25, f"25 folders, not {len(folders)}")
        for folder in folders:
            what = f"{folder.parent.name}/{folder.name}"
            done = subprocess.run([program, "run", "--model", folder, "--data", csv, "-o", out, "--overwrite"],
                                  capture_output=True, text=True, check=False)
            if done.returncode:
                c.that(False, f"{what}: {done.stderr}")
                continue
            with h5lens.open_run(out) as run:
                c.that(h5lens.tokenizer_digest(folder) == run.attr("sha256_tokenizer"), f"{what}: sha256_tokenizer")
                texts, bos = run.str_tokens(0), run.attr("bos")
                c.that("a<tool>" in "".join(texts).replace(" ", "") and "\ufffd" not in "".join(texts)
                       and re.fullmatch(r"<.*>", texts[0]) is not None, f"{what}: BOS {bos}, {texts}")
                if folder.name == "qwen2-slow":
                    want = ["<|im_end|>", "a", "<tool>", "<|im_end|>"]
                    c.that(texts == want, f"{what}: {texts}")


def check_hook_order(c: Checks) -> None:
    """The reader sorts hooks as the program's table has them."""
    table = (HERE.parents[1] / "src/hooks/hooks.c").read_text(encoding="utf-8")
    names = re.findall(r'\{ (?:BLOCK )?"([^"]+)",', table)
    sort = sorted(names, key=lambda n: h5lens.names._in_pass(n if n in (names[0], names[1], *names[-3:]) else f"blocks.3.{n}"))
    c.that(len(names) > 30 and sort == names, f"hooks in order: {sort}")


def check_lens_config(c: Checks) -> None:
    """transformer_lens_config for old files, which have n_key_value_heads always, and for new ones."""
    def config(lengths: tuple[int, ...] = (5,), **more: Any) -> dict[str, Any]:
        base = {"n_layers": 2, "d_model": 8, "n_heads": 4, "n_ctx": 4096, "original_architecture": "LlamaForCausalLM",
                "positional_embedding_type": "rotary", "rotary_base": 10000.0}
        run = SimpleNamespace(model_config={**base, **more}, path="x.h5", lengths=np.array(lengths), attr=lambda _: 0,
                              experiment={})
        return h5lens.transformer_lens_config(run)

    key = "n_key_value_heads"
    c.that(key not in config() and key not in config(n_key_value_heads=4), "none without grouped queries")
    c.that(config(n_key_value_heads=2)[key] == 2, "grouped queries")
    for kind in ("MistralForCausalLM", "Qwen2ForCausalLM", "GemmaForCausalLM", "Gemma2ForCausalLM"):
        for more in ({}, {"n_key_value_heads": 4}):
            c.that(config(original_architecture=kind, **more)[key] == 4, f"{kind} always")
    c.that(config()["n_ctx"] == 2048 and config((3, 3000))["n_ctx"] == 3000 and config(n_ctx=64)["n_ctx"] == 64, "n_ctx")
    c.that(config(positional_embedding_type="standard")["n_ctx"] == 4096, "learned positions are all kept")
    c.that("a_key_of_ours" not in config(a_key_of_ours=1), "our own keys are left out")
    c.that(config()["default_prepend_bos"] is False and isinstance(config()["rotary_base"], int), "BOS, base")
    for experiment, wanted in (({}, []), ({"tied_head": "auto"}, []), ({"tied_head": "stored"}, ["stored", "False"]),
                               ({"tied_head": "tied"}, ["tied", "True"])):
        run = SimpleNamespace(
            model_config={"n_heads": 4, "original_architecture": "GPT2LMHeadModel",
                          "positional_embedding_type": "standard"},
            path="x.h5", experiment=experiment, attr={"tensor_W_U": "u.weight", "tensor_W_E": "e", "prepend_bos": 1}.get)
        _, words = warned(lambda run=run: h5lens.transformer_lens_config(run))
        c.that(len(words) == bool(wanted) and all(w in words[0] for w in wanted and ["x.h5", "u.weight", *wanted]),
               f"{experiment}: {words}")
    rarer = {"use_qk_norm": True, "use_normalization_before_and_after": True, "attn_scores_soft_cap": 50.0, "attn_scale": 16.0,
             "output_logits_soft_cap": 30.0}
    c.that(rarer.items() <= config(**rarer, center_unembed=False).items(), "what the newer families have")
    for more, said in (({"rope_linear_factor": 2.0}, "linear"), ({"rope_type": "yarn"}, "yarn"),
                       ({"original_architecture": "Olmo2ForCausalLM"}, "Olmo2ForCausalLM")):
        try:
            config(**more)
            c.that(False, f"{more} is not refused")
        except h5lens.H5LensError as e:
            c.that(said in str(e), f"{more}: {e}")
    asked = {"fold_ln": True, "center_unembed": True}
    for more, want in (({}, True), ({"center_unembed": False}, False)):
        got = h5lens.Run.processing.fget(SimpleNamespace(model_config=more, experiment={"weights": asked}))
        c.that(got == {**asked, "center_unembed": want}, f"processing with {more}: {got}")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, nargs="?", help="an output file")
    p.add_argument("model", type=Path, nargs="?", help="the model's directory, for its tokenizer.json")
    p.add_argument("--rows", type=int, default=64, help="rows to look at (default 64)")
    p.add_argument("--self-test", action="store_true", help="check the checks, on made-up files")
    args = p.parse_args()
    if bool(args.file) == args.self_test:
        p.error("give a file, or --self-test")
    try:
        c = self_test() if args.self_test else check(args.file, args.model, args.rows)
    except (OSError, h5lens.H5LensError) as e:
        print(f"FAIL {e}\n0 passed, 1 failed")
        return 1
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
