#!/usr/bin/env python3
"""Checks what the reader sums and names of TransformerLens's own models: a last norm of another kind, no norms, no MLPs,
experts, other logits than tokens. The sums are the file's own logits. H5LENS is the program, WORK a folder of our own.

Prints each failure and a last line 'N passed, N failed'; exit status 1 on a failure.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from check_weights import CHECKS, DATA, h5lens, raises, run, that

U = 2.0 ** -24  # float32's rounding, relatively


def opened(name: str, work: Path, *args: str) -> tuple[h5lens.Run, h5lens.Weights]:
    """The run of a model and its weights, every activation stored."""
    model, out, w = DATA / name, work / f"{name}.h5", work / f"{name}-w.h5"
    for code, text in (run("run", "--model", model, "--data", model / "prompts.csv", "--answers", "correct,incorrect",
                           "--hooks", "*", "--quiet", "-o", out, *args),
                       run("weights", model, "-o", w, *[a for a in args if a.startswith(("--set", "weights."))])):
        that(code == 0, f"{name}: {text}")
    return h5lens.open_run(out), h5lens.open_weights(w)


def check_logits(name: str, got: h5lens.Run, w: h5lens.Weights) -> None:
    """The components of the stream add up to the answers' logits, a layer norm's and W_U's biases left out."""
    rows, answers = range(len(got)), got.prompts["answers"][:]
    stack = got.decompose_resid(rows, pos="read")
    w_u = w["unembed.W_U"][...].astype(np.float64)
    for k in range(answers.shape[1]):
        parts = got.logit_attrs(stack, answers[:, k], weights=w).astype(np.float64)
        bias = w["unembed.b_U"][...][answers[:, k]].astype(np.float64)
        if "ln_final.b" in w:
            bias += w["ln_final.b"][...].astype(np.float64) @ w_u[:, answers[:, k]]
        want = got.results["answer_logit"][:, k]
        # A sum over d_model of sums over components, each rounded to float32 on its way through the layers.
        bound = 64 * U * (np.abs(parts).sum(0) + np.abs(bias) + 1)
        far = np.abs(parts.sum(0) + bias - want)
        that((far <= bound).all(), f"{name}: logit_attrs of answer {k} are off by {far.max():.1e}")


def check_final_rms(work: Path) -> None:
    got, w = opened("own_solu_pre", work)
    check_logits("own_solu_pre", got, w)
    stack = got.accumulated_resid(range(2), pos="read", apply_ln=True)[-1]
    far = np.abs(stack - got.cache("ln_final.hook_normalized", rows=range(2), pos="read")).max()
    that(far < 1e-5, f"final_rms: apply_ln takes off the mean: {far:.1e}")
    stack = got.accumulated_resid(range(2), 1, pos="read", apply_ln=True)[-1]
    far = np.abs(stack - got.cache("normalized", 1, "ln1", rows=range(2), pos="read")).max()
    that(far < 1e-5, f"final_rms: a block's norm is a layer norm: {far:.1e}")


def check_attn_only(work: Path) -> None:
    """As TransformerLens: without MLPs there are none of theirs."""
    got, w = opened("own_attn_only", work)
    check_logits("own_attn_only", got, w)
    layers = range(got.model_config["n_layers"])
    stream = got.cache(f"blocks.{layers[-1]}.hook_resid_post", rows=range(2), pos="read")
    attn = [f"{i}_attn_out" for i in layers]
    embeds = got.decompose_resid(range(2), 0, pos="read").labels
    for mode in ("all", "attn"):
        stack = got.decompose_resid(range(2), mode=mode, pos="read")
        that(stack.labels == [*embeds, *attn] and np.abs(stack.sum(0) - stream).max() < 1e-5, f"attn_only, {mode}: {stack.labels}")
    for neurons in (False, True):
        stack = got.get_full_resid_decomposition(range(2), pos="read", weights=w, expand_neurons=neurons)
        that(np.abs(stack.sum(0) - stream).max() < 1e-5 and len(stack.labels) == len(stack), f"attn_only: {stack.labels}")
    for use in (lambda: got.decompose_resid([0], mode="mlp"), lambda: got.accumulated_resid([0], incl_mid=True),
                lambda: got.stack_neuron_results([0], weights=w), lambda: got.decompose_resid([0], 1, mlp_input=True)):
        raises(h5lens.H5LensError, "attn_only", use)


def check_experts(work: Path) -> None:
    got, w = opened("own_experts", work)
    check_logits("own_experts", got, w)
    for use in (got.stack_neuron_results, got.get_full_resid_decomposition):
        raises(h5lens.H5LensError, "expand_neurons=False", lambda: use([0], weights=w))
    for part in ("indices", "weights"):
        full = got.cache(f"blocks.1.mlp.hook_expert_{part}", rows=0)
        for short in (f"expert_{part}", f"mlp.hook_expert_{part}"):
            that(np.array_equal(got.cache(short, 1, rows=0), full, equal_nan=True), f"experts: {short}")
    stream = got.cache(f"blocks.{got.model_config['n_layers'] - 1}.hook_resid_post", rows=range(2), pos="read")
    stack = got.get_full_resid_decomposition(range(2), pos="read", weights=w, expand_neurons=False)
    that(np.abs(stack.sum(0) - stream).max() < 1e-5, "experts: the parts are not the stream")


def check_no_norms(work: Path) -> None:
    """Nothing is divided by what is not there."""
    got, w = opened("own_no_norm", work)
    check_logits("own_no_norm", got, w)
    plain = got.decompose_resid(range(2), pos="read")
    for same in (got.decompose_resid(range(2), pos="read", apply_ln=True), got.apply_ln_to_stack(plain),
                 got.apply_ln_to_stack(plain, 1, recompute_ln=True, weights=w)):
        that(np.array_equal(same, plain) and same.labels == plain.labels, "no norms: the stack is another")
    that(np.array_equal(got.stack_head_results([0], weights=w, apply_ln=True),
                        got.stack_head_results([0], weights=w), equal_nan=True),
         "no norms: heads")


def check_vocab_out(work: Path) -> None:
    """Other logits than tokens: tokens of logit_attrs are W_U's columns."""
    got, w = opened("own_vocab_out", work)
    check_logits("own_vocab_out", got, w)
    n = got.model_config["d_vocab_out"]
    that(n != got.model_config["d_vocab"], "d_vocab_out is d_vocab")
    stack = got.decompose_resid([0], pos="read")
    that(got.logit_attrs(stack, n - 1, weights=w).shape == stack.shape[:-1], "the last logit")
    raises(IndexError, f"the model has {n} logits", lambda: got.logit_attrs(stack, n, weights=w))
    raises(h5lens.H5LensError, "d_vocab_out = d_vocab", w.copying_scores)
    that(w.copying_scores("QK").shape == (w.config["n_layers"], w.config["n_heads"]), "copying_scores('QK')")


def check_processing(work: Path) -> None:
    """What was done, of a run and of weights: experts take no fold_ln."""
    got, w = opened("mixtral", work)
    that(w.processing == got.processing and w.processing["fold_ln"] is False and w.processing["center_unembed"] is True,
         f"processing: {w.processing}, {got.processing}")


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as name:
        work = Path(name)
        check_final_rms(work)
        check_attn_only(work)
        check_experts(work)
        check_no_norms(work)
        check_processing(work)
        check_vocab_out(work)
    return CHECKS.end()


if __name__ == "__main__":
    sys.exit(main())
