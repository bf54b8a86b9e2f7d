#!/usr/bin/env python3
"""Checks experiments/modular-addition: a model in TransformerLens's own form, ids in, and what its tables say.

All pairs are as right as the training script recorded; logits, the lens, attributions, attention and neurons are those of
the model's formulas in float64, written down here; its picture finds the frequencies. H5LENS is the program, WORK a folder
of our own.

Errors are in units of the float64 array's RMS. float32 has u = 2⁻²⁴; of the sums here the longest are of 256 products (the
MLP's) and 64, in blocks of at most 128, so some 20 u of the largest summand and a few times that through two of them: 5e-6.
Measured: 1e-6.

Prints each failure and a last line 'N passed, N failed'; exit status 1 on a failure.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import h5lens  # noqa: E402
import truth_weights  # noqa: E402
from checks import Checks  # noqa: E402

BIN = os.environ.get("H5LENS", str(ROOT / "build" / "h5lens"))
FOLDER = ROOT / "experiments" / "modular-addition"
BOUND = 5e-6

CHECKS = Checks()
that = CHECKS.that


def run_program(*args: object) -> str:
    got = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
                         env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")})
    that(got.returncode == 0, f"{args}: {got.returncode}: {got.stdout}")
    return got.stdout


def close(what: str, got: np.ndarray, want: np.ndarray) -> None:
    e = float(np.abs(got - want).max() / np.sqrt((want ** 2).mean())) if got.shape == want.shape else np.inf
    that(e <= BOUND, f"{what}: {got.shape}, {want.shape}: off by {e:.1e}")


def formulas(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """A block without norms in float64, at the last position: pattern, what is written, neurons, logits."""
    w = {n: read() for n, read in truth_weights.read_safetensors(str(FOLDER / "model" / "model.safetensors")).items()}
    w |= {n.removeprefix("blocks.0."): x for n, x in w.items()}
    x = w["embed.W_E"][tokens] + w["pos_embed.W_pos"]
    q = np.einsum("nd,hde->nhe", x[:, -1], w["attn.W_Q"]) + w["attn.b_Q"]
    k, v = (np.einsum("npd,hde->nphe", x, w[f"attn.W_{a}"]) + w[f"attn.b_{a}"] for a in "KV")
    scores = np.einsum("nhe,nphe->nhp", q, k) / np.sqrt(q.shape[-1])
    pattern = np.exp(scores - scores.max(-1, keepdims=True))
    pattern /= pattern.sum(-1, keepdims=True)
    heads = np.einsum("nhp,nphe,hed->nhd", pattern, v, w["attn.W_O"])
    mid = x[:, -1] + heads.sum(1) + w["attn.b_O"]
    post = np.maximum(mid @ w["mlp.W_in"] + w["mlp.b_in"], 0)
    mlp = post @ w["mlp.W_out"] + w["mlp.b_out"]
    return {"pattern": pattern, "post": post, "embed": w["embed.W_E"][tokens[:, -1]] @ w["unembed.W_U"],
            "pre": x[:, -1] @ w["unembed.W_U"] + w["unembed.b_U"], "mlp": mlp @ w["unembed.W_U"],
            "heads": heads @ w["unembed.W_U"], "logits": (mid + mlp) @ w["unembed.W_U"] + w["unembed.b_U"]}


def check_run(out: Path) -> None:
    run_program(BIN, "run", FOLDER / "experiment.yaml", "-o", out, "--quiet")
    facts = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
    with h5lens.open_run(out) as run:
        right = run.results["answer_rank"][:, 0] == 0
        test = run.columns["split"] == "test"
        that(len(run) == facts["pairs"] and right.sum() == facts["right"], f"{right.sum()} of {len(run)} are right")
        that(right[test].mean() == facts["test_accuracy"] >= 0.99, f"{right[test].mean()} of the pairs not trained on")
        tokens, answers = run.tokens(slice(None)), run.prompts["answers"]
        a, b, p = tokens[:, 0], tokens[:, 1], facts["p"]
        that((answers[:, 0] == (a + b) % p).all() and (answers[:, 0] != answers[:, 1]).all(), "the answers are sums")
        that(len({*zip(a.tolist(), b.tolist())}) == p * p and (tokens[:, 2] == p).all(), "all pairs, and '='")
        want = formulas(tokens)
        of = {k: np.take_along_axis(x, answers, -1) for k, x in want.items() if k in ("embed", "pre", "mlp", "logits")}
        close("answer_logit", run.results["answer_logit"][...], of["logits"])
        close("lens_logit", run.results["lens_logit"][...], np.stack([of["pre"], of["logits"]], 1))
        better = (want["logits"] > of["logits"][:, :1]).sum(-1)
        that((run.results["answer_rank"][:, 0] == better).all(), "ranks")
        labels = [s.decode() for s in run.file["component"][...]]
        attrs = run.results["logit_attrs"][...]
        close("logit_attrs, embed", attrs[:, labels.index("embed")], of["embed"])
        close("logit_attrs, the MLP", attrs[:, labels.index("0_mlp_out")], of["mlp"])
        close("head_attrs", run.results["head_attrs"][:, 0], np.stack([want["heads"][i][:, x] for i, x in enumerate(answers)]))
        close("hook_pattern", run.cache("pattern", 0, pos="read"), want["pattern"])
        close("mlp.hook_post", run.cache("post", 0, "mlp", pos="read"), want["post"])
        try:
            that(False, f"texts without a tokenizer: {run.to_str_tokens([1, 2])}")
        except h5lens.H5LensError as e:
            that("the run read ids, and no tokenizer" in str(e), f"texts without a tokenizer: {e}")
        that(run.model_config["d_vocab_out"] == p and run.model_config["normalization_type"] is None, "model_config")


def check_picture(out: Path, tmp: Path) -> None:
    said = run_program(sys.executable, FOLDER / "fourier.py", out, "-o", tmp / "fourier.png")
    found = re.findall(r"^frequency (\d+): \d+ neurons, .* (\d+) % \(median\)$", said, re.M)
    that(found and all(int(share) >= 90 for _, share in found), f"frequencies: {said}")
    that((tmp / "fourier.png").stat().st_size > 10000, "the picture")


def check_back(tmp: Path) -> None:
    """Written in TransformerLens's own form once more, it is the same model."""
    again, model = tmp / "again", FOLDER / "model"
    run_program(BIN, "weights", model, "-o", again, "--format", "hooked_transformer")
    mine, theirs = (truth_weights.read_safetensors(str(d / "model.safetensors")) for d in (again, model))
    that(set(mine) == set(theirs) and all((mine[n]() == theirs[n]()).all() for n in mine), "the tensors, there and back")
    config, want = (json.loads((d / "config.json").read_text(encoding="utf-8")) for d in (again, model))
    # What HookedTransformerConfig has by default is left out; data.prepend_bos is of the experiment.
    default = {"attention_dir": "causal", "attn_only": False, "default_prepend_bos": False}
    odd = {k: v for k, v in want.items() if config.get(k, default.get(k)) != v}
    that(not odd, f"config.json, there and back: {odd}")


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as name:
        tmp = Path(name)
        check_run(tmp / "out.h5")
        check_picture(tmp / "out.h5", tmp)
        check_back(tmp)
    return CHECKS.end()


if __name__ == "__main__":
    sys.exit(main())
