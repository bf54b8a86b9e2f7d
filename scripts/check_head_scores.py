#!/usr/bin/env python3
"""Whether /results/head_scores and head_scores_mean are what TransformerLens 2.16's detect_head would have given.

    check_head_scores.py [--h5lens build/h5lens] [--truth] [MODEL_DIR …]

A score is the share of a head's attention that a mask of queries and keys holds: with the pattern A [query, key],
sum(A * mask) / sum(A), which is detect_head's error_measure "mul". The keys of a query q, all at or before it:

    previous_token   q - 1                                  first_token  0
    current_token    q                                      duplicate_token  k < q with the token of q
    induction        k <= q, after an earlier token that is that of q (q itself, where q - 1 has q's token)

head_scores_mean is the mean of sum over keys (A * mask) over the queries that have such a key, whether or not a window
lets them see it; NaN where none has. Three masks are made by TransformerLens, two are tensors that are given to it.

For each model (by default the demo's and tests/golden/data/*) it writes prompts of 1 token to the whole context, with
repeats near and far, runs h5lens on them (each CPU level; processed and raw weights; with and without BOS; in shards),
and compares the file, detect_head on float32 patterns and the definition on float64 ones (scripts/truth.py) with each
other. detect_head raises on one token and on a full context; there its own compute_head_attention_similarity_score is
called. --truth leaves h5lens out.

Prints a line a model with the largest differences, 'N passed, N failed'; exit status 1 on a failure. Needs torch,
transformers, transformer_lens 2.16 and h5py; no test of `make test`.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from tokenizers import Tokenizer
from transformer_lens import head_detector
from transformers.utils import logging

import truth
import truth_weights
from checks import Checks, models_of, parser_of
from fidelity_refs import load_hf, load_tl, tl_cannot

SCORES = ("previous_token", "current_token", "first_token", "duplicate_token", "induction")
TABLES = ("head_scores", "head_scores_mean")
TOLERANCE = 1e-5
WAYS = [("--cpu", level, *more) for level in ("avx2", "auto") for more in ((), ("--set", "shards.prompts=3"))]
Tokens = list[int]
Two = tuple[np.ndarray, np.ndarray]  # the rows of both tables: [layer, head, score]


# --- prompts ------------------------------------------------------------------------------

def texts(folder: Path, n_ctx: int) -> list[str]:
    """One token to n_ctx - 1, so that with BOS the longest fills the context."""
    if (folder / "prompts.csv").exists():
        words = [" the", " to", " Mary", " John", " cat", " and", " gave"]
    else:
        words = [" and", " to", " the", " gave", " went", " a", " of"]
    rng = np.random.RandomState(8)
    mixed = ["".join(rng.choice(words, n)) for n in (3, 7, 12, 13, n_ctx // 2, n_ctx - 2, n_ctx - 1)]
    return [words[0], words[0] + "<|endoftext|>" + words[0], words[0] * 2, "".join(words[:2]), words[0] * 5, "".join(words[:5] * 2), "".join(words),
            "".join(words * ((n_ctx - 2) // len(words))), *mixed]


def encoded(folder: Path, rows: list[str], bos: bool) -> list[Tokens]:
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    first = [tok.token_to_id("<|endoftext|>")] if bos else []
    return [first + tok.encode(row, add_special_tokens=False).ids for row in rows]


def n_ctx_of(folder: Path) -> int:
    return truth_weights.read_model(str(folder))[0].n_ctx


# --- the definition, in float64 -----------------------------------------------------------

def keys_of(score: str, t: Tokens, q: int) -> list[int]:
    earlier = [k for k in range(q) if t[k] == t[q]]
    return {"previous_token": [q - 1] if q else [], "current_token": [q], "first_token": [0],
            "duplicate_token": earlier, "induction": [k + 1 for k in earlier]}[score]


def scores_of(pattern: np.ndarray, t: Tokens) -> Two:
    """pattern [layer, head, query, key]."""
    whole, mean = [], []
    for score in SCORES:
        keys = [keys_of(score, t, q) for q in range(len(t))]
        shares = [pattern[:, :, q, k].sum(-1) for q, k in enumerate(keys) if k]
        whole.append(sum(shares, np.zeros(pattern.shape[:2])) / pattern.sum((2, 3)))
        mean.append(np.mean(shares, axis=0) if shares else np.full(pattern.shape[:2], np.nan))
    return np.stack(whole, -1), np.stack(mean, -1)


def defined(model: truth_weights.Model, t: Tokens) -> Two:
    cache = truth.run(model, t, result=False)
    return scores_of(np.stack([cache[f"blocks.{l}.attn.hook_pattern"] for l in range(model.cfg.n_layers)]), t)


# --- TransformerLens ----------------------------------------------------------------------

def mask_of(score: str, ids: torch.Tensor) -> torch.Tensor:
    n = ids.shape[-1]
    if score == "current_token":
        return torch.eye(n)
    if score == "first_token":
        return torch.cat([torch.ones(n, 1), torch.zeros(n, n - 1)], dim=1)
    return getattr(head_detector, f"get_{score}_head_detection_pattern")(ids)


def detected(c: Checks, what: str, model: Any, t: Tokens) -> Two:
    """By detect_head; and the means, from TransformerLens's pattern and masks."""
    ids = torch.tensor([t])
    model.to_tokens = lambda text: ids  # detect_head takes a text
    _, cache = model.run_with_cache(ids, remove_batch_dim=True, names_filter=lambda n: n.endswith("hook_pattern"))
    pattern = torch.stack([cache["pattern", l, "attn"] for l in range(model.cfg.n_layers)])
    whole, mean = [], []
    for score in SCORES:
        mask = mask_of(score, ids)
        named = score not in ("current_token", "first_token")
        try:
            one = head_detector.detect_head(model, "", f"{score}_head" if named else mask, cache=cache, error_measure="mul")
            raised = False
        except AssertionError as e:
            raised = str(e) == head_detector.SEQ_LEN_ERR
            one = torch.tensor([[head_detector.compute_head_attention_similarity_score(
                a, mask, exclude_bos=False, exclude_current_token=False, error_measure="mul") for a in layer]
                for layer in pattern])
        c.that(raised == (not 1 < len(t) < model.cfg.n_ctx), f"{what}: detect_head raises of {len(t)} tokens: {raised}")
        has = mask.sum(-1) > 0
        whole.append(one.numpy())
        mean.append((pattern * mask).sum(-1)[:, :, has].mean(-1).numpy())  # of none: NaN
    return np.stack(whole, -1), np.stack(mean, -1)


# --- h5lens -------------------------------------------------------------------------------

def run_program(binary: Path, folder: Path, rows: list[str], out: Path, *more: str) -> tuple[list[Tokens], Two]:
    data = out.with_suffix(".csv")
    with open(data, "w", encoding="utf-8", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows([["prompt"], *([row] for row in rows)])
    subprocess.run([str(binary), "run", "--model", str(folder), "--data", str(data), "--hooks", "none", "--tables",
                    ",".join(TABLES), "-o", str(out), "--overwrite", "--quiet", *more], check=True)
    with h5py.File(out) as f:
        names = [[scale.name for d in f["results"][table].dims for scale in d.values()] for table in TABLES]
        if names != [["/prompt", "/layer", "/head", "/score"]] * 2 or f["score"].asstr()[:].tolist() != list(SCORES):
            sys.exit(f"{out}: dimensions {names}, scores {f['score'][:]}")
        tokens = [row[:n].tolist() for row, n in zip(f["prompts/tokens"][:], f["prompts/length"][:])]
        first, second = (f["results"][table][:] for table in TABLES)
    return tokens, (first, second)


# --- comparing ----------------------------------------------------------------------------

def distance(a: Two, b: Two) -> float:
    """The largest difference; NaN must face NaN."""
    worst = 0.0
    for x, y in zip(a, b):
        if x.shape != y.shape or not np.array_equal(np.isnan(x), np.isnan(y)):
            return np.inf
        worst = max(worst, float(np.nan_to_num(np.abs(x.astype(np.float64) - y)).max(initial=0)))
    return worst


def check_model(c: Checks, binary: Path | None, folder: Path, tmp: Path, raw: bool, bos: bool) -> None:
    what = f"{folder.name}{' raw' if raw else ''}{'' if bos else ' without BOS'}"
    flags = {f: not raw for f in truth.PROCESSING}
    hf = load_hf(str(folder), torch.float32)
    why = tl_cannot(hf.config)
    theirs = None if why else load_tl(hf, flags, torch.float32)
    exact, rows = truth.load(str(folder), **flags), texts(folder, n_ctx_of(folder))
    tokens = encoded(folder, rows, bos)
    want = [defined(exact, t) for t in tokens]
    by_tl = [detected(c, what, theirs, t) for t in tokens] if theirs else []
    far = {"detect_head and float64": [max(map(distance, by_tl, want))]} if by_tl else {}
    as_here = (*(("--raw-weights",) if raw else ()), "--set", f"data.prepend_bos={str(bos).lower()}")
    for more in WAYS if binary else []:
        got, (first, second) = run_program(binary, folder, rows, tmp / "out.h5", *more, *as_here)
        c.that(got == tokens, f"{what}: h5lens's tokens")
        for name, others in (("float64", want), ("detect_head", by_tl)):
            if others:
                far.setdefault(f"h5lens and {name}", []).append(max(map(distance, zip(first, second), others)))
    for name, found in far.items():  # h5lens: by way
        c.that(max(found) < TOLERANCE, f"{what}: {name}: {found}")
    lengths = sorted({len(t) for t in tokens})
    print(f"  {what}: {len(tokens)} prompts of {lengths[0]} to {lengths[-1]} tokens (context {exact.cfg.n_ctx}): "
          + ", ".join(f"{name} {max(found):.1e}" for name, found in far.items()) + (f"; {why}" if why else ""), flush=True)


def main() -> int:
    p = parser_of(__doc__)
    p.add_argument("--truth", action="store_true", help="TransformerLens and the definition alone")
    args = p.parse_args()
    logging.set_verbosity_error()
    c = Checks()
    with tempfile.TemporaryDirectory() as tmp, torch.inference_mode():
        for folder in models_of(args):
            for raw, bos in ((False, True), (True, True), (False, False)):
                check_model(c, None if args.truth else args.h5lens, folder, Path(tmp), raw, bos)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
