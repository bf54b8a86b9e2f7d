#!/usr/bin/env python3
"""Whether the logit lens's tables are what float64 and TransformerLens 2.16 say.

    check_lens.py [--h5lens build/h5lens] [--truth] [MODEL_DIR …]

/results/lens_top_token, lens_top_prob, lens_entropy, lens_kl and answer_logprob, of both lenses (`lens`), with and without
lens_mid, at the read position and with lens_positions: all.

TransformerLens: cache.accumulated_resid(incl_mid=…), its labels too; then unembed(ln_final(stack)), or, of
cached_scale_no_bias, accumulated_resid(apply_ln=True) @ W_U; then log_softmax, in float32. Float64: scripts/truth.py.

For each model (by default the demo's and tests/golden/data/*) it runs h5lens on prompts of 1 token to the whole context
(each CPU level, processed and raw weights, in shards). A top token must be one of those that float64 has within TOLERANCE
of the largest logit, other values lie within TOLERANCE of float64's; with `all` the values at the read position are the
bits of `read`. Over all models, the rule of scripts/fidelity.py: the RMS error is no larger than TransformerLens's, the
largest no more than 1.5 times. --truth leaves h5lens out.

Prints a line a model with the largest differences, 'N passed, N failed'; exit status 1 on a failure. Needs torch,
transformers, transformer_lens 2.16 and h5py; no test of `make test`.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from transformers.utils import logging

import truth
import truth_weights
from check_head_scores import Tokens, encoded, n_ctx_of, texts
from checks import Checks, models_of, parser_of
from fidelity_refs import load_hf, load_tl, tl_cannot

EVERYWHERE = ("lens_top_token", "lens_top_prob", "lens_entropy")
TABLES = (*EVERYWHERE, "lens_kl", "answer_logprob")
VALUES = TABLES[1:]
TOLERANCE = 1e-4
WAYS = [("--cpu", level, *more) for level in ("avx2", "auto") for more in ((), ("--set", "shards.prompts=3"))]
Rows = dict[str, np.ndarray]  # a prompt's: EVERYWHERE [lens_layer, pos], lens_kl [lens_layer], answer_logprob [answer]


# --- one prompt, from logits ----------------------------------------------------------------

def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def rows_of(lens: np.ndarray, own: np.ndarray, lens_log: np.ndarray, own_log: np.ndarray, answers: list[int]) -> Rows:
    """lens [lens_layer, pos, V] and own [V], what the model says at the read position, the last; and their log softmax."""
    p = np.exp(lens_log)
    return {"lens_top_token": lens.argmax(-1), "lens_top_prob": p.max(-1), "lens_entropy": -(p * lens_log).sum(-1),
            "lens_kl": (np.exp(own_log) * (own_log - lens_log[:, -1])).sum(-1), "answer_logprob": own_log[answers]}


def labels_of(n_layers: int, mid: bool) -> list[str]:
    return [f"{l}_{at}" for l in range(n_layers) for at in (("pre", "mid") if mid else ("pre",))] + ["final_post"]


# --- float64 --------------------------------------------------------------------------------

def exact_logits(model: truth_weights.Model, cache: truth.Cache, mode: str, mid: bool) -> np.ndarray:
    n = model.cfg.n_layers
    stack = np.stack([cache[f"blocks.{l}.hook_resid_{at}"] for l in range(n) for at in (("pre", "mid") if mid else ("pre",))]
                     + [cache[f"blocks.{n - 1}.hook_resid_post"]])
    W_U, b_U = model.weights["unembed.W_U"], model.weights["unembed.b_U"]
    if mode == "recompute":
        return truth.capped(model.cfg.logit_cap, truth.layer_norm(model, "ln_final", stack) @ W_U + b_U)
    stack = stack if model.cfg.norm == "RMS" else truth.centred(stack, -1)
    return stack / cache["ln_final.hook_scale"] @ W_U


def exact(model: truth_weights.Model, t: Tokens, answers: list[int], mode: str, mid: bool) -> tuple[Rows, np.ndarray]:
    cache = truth.run(model, t, result=False)
    lens, own = exact_logits(model, cache, mode, mid), cache["logits"][-1]
    return rows_of(lens, own, log_softmax(lens), log_softmax(own), answers), lens


# --- TransformerLens ------------------------------------------------------------------------

def theirs(c: Checks, what: str, model: Any, t: Tokens, answers: list[int], mode: str, mid: bool) -> Rows:
    logits, cache = model.run_with_cache(torch.tensor([t]))
    stack, labels = cache.accumulated_resid(layer=-1, incl_mid=mid, apply_ln=mode != "recompute", return_labels=True)
    c.that(labels == labels_of(model.cfg.n_layers, mid), f"{what}: TransformerLens's labels: {labels}")
    lens = model.unembed(model.ln_final(stack)) if mode == "recompute" else stack @ model.W_U
    cap = model.cfg.output_logits_soft_cap
    if mode == "recompute" and cap > 0:
        lens = cap * torch.tanh(lens / cap)  # as forward does
    lens, own = lens[:, 0], logits[0, -1]
    return rows_of(lens.numpy(), own.numpy(), lens.log_softmax(-1).numpy(), own.log_softmax(-1).numpy(), answers)


# --- h5lens ---------------------------------------------------------------------------------

def run_program(binary: Path, folder: Path, rows: list[str], out: Path, *more: str) -> dict[str, Any]:
    data = out.with_suffix(".csv")
    with open(data, "w", encoding="utf-8", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows([["prompt", "a", "b"], *([row, " to", " the"] for row in rows)])
    subprocess.run([str(binary), "run", "--model", str(folder), "--data", str(data), "--answers", "a,b", "--hooks", "none",
                    "--tables", ",".join(TABLES), "-o", str(out), "--overwrite", "--quiet", *more], check=True)
    with h5py.File(out) as f:
        dims = {t: [scale.name[1:] for d in f["results"][t].dims for scale in d.values()] for t in TABLES}
        return {"labels": f["lens_layer"].asstr()[:].tolist(), "dims": dims, "answers": f["prompts/answers"][0].tolist(),
                "tokens": [row[:n].tolist() for row, n in zip(f["prompts/tokens"][:], f["prompts/length"][:])],
                **{t: f["results"][t][:] for t in TABLES}}


def check_shape(c: Checks, what: str, got: dict[str, Any], n_layers: int, mid: bool, every: bool) -> None:
    wide = ["prompt", "lens_layer", *(["pos"] if every else [])]
    want = {**{t: wide for t in EVERYWHERE}, "lens_kl": ["prompt", "lens_layer"], "answer_logprob": ["prompt", "answer"]}
    c.that(got["labels"] == labels_of(n_layers, mid), f"{what}: labels {got['labels']}")
    c.that(got["dims"] == want, f"{what}: dimensions {got['dims']}")


def check_read(c: Checks, what: str, every: dict[str, Any], read: dict[str, Any]) -> None:
    """Padding past a prompt's end, and at the read position the same bits."""
    for table in EVERYWHERE:
        for row, t in enumerate(every["tokens"]):
            rest = every[table][row, :, len(t):]
            c.that(bool((rest == -1).all() if rest.dtype.kind == "i" else np.isnan(rest).all()), f"{what}: {table}: padding")
            c.that(every[table][row, :, len(t) - 1].tobytes() == read[table][row].tobytes(), f"{what}: {table}: read and all")
    for table in ("lens_kl", "answer_logprob"):
        c.that(every[table].tobytes() == read[table].tobytes(), f"{what}: {table}: read and all")


# --- comparing ------------------------------------------------------------------------------

class Pool:
    """Errors of one side against float64, over all models."""

    def __init__(self) -> None:
        self.square: dict[str, list[float]] = {}
        self.most: dict[str, float] = {}

    def add(self, name: str, error: np.ndarray) -> float:
        self.square.setdefault(name, []).append(float((error**2).mean()))
        self.most[name] = max(self.most.get(name, 0.0), float(np.abs(error).max()))
        return float(np.abs(error).max())

    def rms(self, name: str) -> float:
        return float(np.sqrt(np.mean(self.square[name])))


def compare(c: Checks, what: str, pool: Pool, mode: str, is_: Rows, want: Rows, lens: np.ndarray) -> float:
    top = np.take_along_axis(lens, is_["lens_top_token"][..., None].astype(np.int64), -1)[..., 0]
    c.that(bool((top >= lens.max(-1) - TOLERANCE).all()), f"{what}: lens_top_token")
    worst = 0.0
    for table in VALUES:
        far = pool.add(f"{mode}/{table}", is_[table].astype(np.float64) - want[table])
        c.that(far < TOLERANCE, f"{what}: {table}: {far}")
        worst = max(worst, far)
    return worst


def prompt_of(got: dict[str, Any], row: int, n: int) -> Rows:
    return {t: got[t][row][..., :n] if t in EVERYWHERE else got[t][row] for t in TABLES}


def check_case(c: Checks, binary: Path | None, folder: Path, tmp: Path, raw: bool, mode: str, mid: bool, pools: list[Pool],
               loaded: tuple[truth_weights.Model, Any], tokens: list[Tokens], rows: list[str], answers: list[int]) -> None:
    what = f"{folder.name}{' raw' if raw else ''} {mode}{' mid' if mid else ''}"
    model, tl = loaded
    want = [exact(model, t, answers, mode, mid) for t in tokens]
    far: dict[str, list[float]] = {}
    if tl:
        far["TransformerLens"] = [compare(c, f"{what}, TransformerLens", pools[1], mode, theirs(c, what, tl, t, answers, mode, mid), *w)
                                  for t, w in zip(tokens, want)]
    settings = (*(("--raw-weights",) if raw else ()), "--lens", mode, *(("--lens-mid",) if mid else ()))
    for way in WAYS if binary else []:
        every, read = (run_program(binary, folder, rows, tmp / "out.h5", *way, *settings, "--lens-positions", at) for at in ("all", "read"))
        c.that(every["tokens"] == tokens and every["answers"] == answers, f"{what}: h5lens's tokens")
        check_shape(c, what, every, model.cfg.n_layers, mid, True)
        check_shape(c, what, read, model.cfg.n_layers, mid, False)
        check_read(c, what, every, read)
        c.that(mode != "recompute" or not every["lens_kl"][:, -1].any(), f"{what}: the last lens layer is the model itself")
        c.that(bool((every["lens_kl"] >= 0).all()), f"{what}: lens_kl is not negative")
        far.setdefault("h5lens", []).extend(
            compare(c, f"{what}, h5lens {way}", pools[0] if tl else Pool(), mode, prompt_of(every, row, len(t)), *w)
            for row, (t, w) in enumerate(zip(tokens, want)))
    print(f"  {what}: {len(tokens)} prompts, from float64: " + ", ".join(f"{k} {max(v):.1e}" for k, v in far.items()), flush=True)


def check_model(c: Checks, binary: Path | None, folder: Path, tmp: Path, raw: bool, pools: list[Pool]) -> None:
    flags = {f: not raw for f in truth.PROCESSING}
    hf = load_hf(str(folder), torch.float32)
    tl = None if tl_cannot(hf.config) else load_tl(hf, flags, torch.float32)
    model = truth.load(str(folder), **flags)
    rows = [row for row in texts(folder, n_ctx_of(folder)) if not row.endswith(" ")]
    tokens, answers = encoded(folder, rows, True), [t[0] for t in encoded(folder, [" to", " the"], False)]
    for mode in truth.LENS_MODES:
        for mid in (False,) if model.cfg.parallel else (False, True):
            check_case(c, binary, folder, tmp, raw, mode, mid, pools, (model, tl), tokens, rows, answers)
    if model.cfg.parallel and binary:
        run = subprocess.run([str(binary), "run", "--model", str(folder), "--data", str(tmp / "out.csv"), "--hooks", "none",
                              "--tables", "lens_kl", "--lens-mid", "-o", str(tmp / "no.h5")], capture_output=True, text=True)
        c.that(run.returncode == 2 and "lens_mid" in run.stderr, f"{folder.name}: lens_mid in parallel blocks: {run.stderr}")


def judge(c: Checks, ours: Pool, tl: Pool) -> None:
    print("over all models, our RMS and largest error beside TransformerLens's")
    for name in sorted(ours.square):
        rms, most, tl_rms, tl_most = ours.rms(name), ours.most[name], tl.rms(name), tl.most[name]
        print(f"  {name:40s} {rms:.2e} / {tl_rms:.2e} = {rms / tl_rms:.2f}   {most:.2e} / {tl_most:.2e} = {most / tl_most:.2f}")
        c.that(rms <= tl_rms and most <= 1.5 * tl_most, f"{name}: further from float64 than TransformerLens")


def main() -> int:
    p = parser_of(__doc__)
    p.add_argument("--truth", action="store_true", help="TransformerLens and float64 alone")
    args = p.parse_args()
    logging.set_verbosity_error()
    c, pools = Checks(), [Pool(), Pool()]
    with tempfile.TemporaryDirectory() as tmp, torch.inference_mode():
        for folder in models_of(args):
            for raw in (False, True):
                check_model(c, None if args.truth else args.h5lens, folder, Path(tmp), raw, pools)
    judge(c, *pools)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
