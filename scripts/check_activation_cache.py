#!/usr/bin/env python3
"""Whether decompose_resid, accumulated_resid, stack_head_results, stack_neuron_results, get_full_resid_decomposition,
logit_attrs and apply_ln_to_stack of scripts/h5lens give what TransformerLens 2.16's ActivationCache does.

    check_activation_cache.py [--h5lens build/h5lens] [MODEL_DIR …]

For each model (by default the demo's and tests/golden/data/*), with processed and with raw weights, it runs h5lens on
prompts of different lengths and TransformerLens on each prompt alone, and compares every call: layers, modes, mlp_input,
incl_mid, apply_ln, the remainder, heads from hook_result and from hook_z, one token or one for each prompt or position,
all positions and chosen ones; labels and shapes too. Two references, and two tolerances:

  the same numbers   TransformerLens's ActivationCache filled from the file. What is only stacked must be equal bit by
                     bit. Else both round, and are held against the same call in float64: ours is off by at most twice
                     what TransformerLens in float32 is, and FEW ulps of the RMS where that happens to be near nothing.
  its own numbers    TransformerLens's own run. The two passes through the model round differently, at every addition to
                     the stream by an ulp of its largest numbers, which are many times the RMS: below OWN.

Errors are the largest difference over the reference's RMS (over all components of the call: a component that is zero but
for rounding has no scale of its own).

Where TransformerLens 2.16 does not do what the call is defined to do, h5lens follows the definition, and `bugs` holds
TransformerLens to doing what is said here:

  1. logit_attrs of a model whose ln_final is not folded leaves its weight out. Ours: times ln_final.w.
  2. stack_head_results(layer=0, incl_remainder=True) gives the last layer's resid_post: its index is -1. Ours: the
     stream at layer 0's input.
  3. mlp_input in parallel blocks: decompose_resid adds the layer's own attn_out, which the MLP does not read, and
     accumulated_resid raises. Ours: the MLP reads resid_pre.
  4. logit_attrs with a token for each prompt and a stack of several positions lines the tokens up with the positions:
     an error, or wrong numbers where there are as many. Ours: with the prompts.
  5. decompose_resid(layer=0, incl_embeds=False) and mode="mlp" alike raise, where there is no component. Ours: none.
  6. mlp_input at the end: accumulated_resid ignores it, decompose_resid raises a KeyError. Ours: an error that says so.
  And the sum of logit_attrs is the logit less b_U (not folded: also less ln_final.b times W_U); ours too.

Prints a line a model, 'N passed, N failed'; exit status 1 on a failure. Needs torch, transformers, transformer_lens 2.16
and h5py; no test of `make test`.
"""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch
from transformer_lens import ActivationCache
from transformers.utils import logging

import h5lens
import truth
from checks import ROOT, Checks, models_of, parser_of
from fidelity_refs import load_hf, load_tl, tl_cannot

N_ROWS = 6
EPS = 2.0 ** -23
FEW = 8 * EPS  # 9.5e-7
SAME = 32 * EPS  # 3.8e-6: for the definitions that TransformerLens departs from, and sums
OWN = 512 * EPS  # 6.1e-5
POSITIONS: list[Any] = [None, -1, slice(-2, None)]
SEVERAL = slice(0, 2)  # of every prompt


def run_program(binary: Path, folder: Path, out: Path, hooks: str, *more: str) -> None:
    data = folder / "prompts.csv"
    data = data if data.exists() else ROOT / "experiments" / "ioi.csv"
    subprocess.run([str(binary), "run", "--model", str(folder), "--data", str(data), "--answers", "correct,incorrect",
                    "--hooks", hooks, "--limit", str(N_ROWS), "-o", str(out), "--overwrite", *more],
                   check=True, capture_output=True)


def error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference in units of the reference's RMS."""
    want = want.astype(np.float64)
    if got.shape != want.shape or not np.isfinite(got).all():
        return np.inf
    rms = np.sqrt(np.mean(want * want)) if want.size else 0.0
    return float(np.abs(got - want).max(initial=0) / max(rms, 1e-30))


class Model:
    """A run, and TransformerLens's model and caches of the same prompts."""

    def __init__(self, c: Checks, what: str, run: h5lens.Run, by_z: h5lens.Run, tl: Any) -> None:
        self.c, self.what, self.run, self.by_z, self.tl = c, what, run, by_z, tl
        self.n, self.weights = tl.cfg.n_layers, tl.state_dict()
        self.parallel, self.folded = tl.cfg.parallel_attn_mlp, str(tl.cfg.normalization_type).endswith("Pre")
        self.good, self.bad = run.prompts["answers"][:, :2].T.astype(np.int64)
        tl.set_use_attn_result(True)
        self.tl64 = copy.deepcopy(tl).double()
        for part in self.tl64.modules():
            if hasattr(part, "cfg"):
                part.cfg.dtype = torch.float64  # LayerNorm's output is of it
        self.own, self.filled = [], []
        self.same: dict[h5lens.Run, list[tuple[ActivationCache, ActivationCache]]] = {run: [], by_z: []}  # and in float64
        for i, n in enumerate(run.lengths):
            ids = torch.from_numpy(run.tokens(i)[:n]).long()[None]
            self.own.append(tl.run_with_cache(ids)[1])
            for file, caches in self.same.items():
                here = file.activation_cache([i], torch=True)
                wide = {k: v.double() for k, v in here.items()}
                caches.append((ActivationCache(here, tl), ActivationCache(wide, self.tl64)))
                with contextlib.redirect_stdout(None):  # they say that there is no hook_result
                    for cache in caches[-1]:
                        cache.stack_head_results()
            self.filled.append(self.same[run][i][0])
        self.worst: dict[str, dict[str, float]] = {}

    def compare(self, name: str, ours: Callable[..., h5lens.Stack], theirs: Callable[..., Any], exact: bool,
                run: h5lens.Run | None = None) -> None:
        """ours() is of all rows; theirs(i, cache) of the i-th alone, and gives values and labels (or None)."""
        stack, found = ours(), self.worst.setdefault(name.split("(")[0], {})
        for i, (own_cache, caches) in enumerate(zip(self.own, self.same[run or self.run])):
            (own, labels), (same, _), (true, _) = (theirs(i, cache) for cache in (own_cache, *caches))
            own, same, true = (x.numpy()[:, 0] for x in (own, same, true))
            got, what = np.asarray(stack)[:, i], f"{self.what}: {name}: row {i}"
            if "pos" in (stack.axes or ()):
                got, past = got[:, :own.shape[1]], got[:, own.shape[1]:]
                self.c.that(bool(np.isnan(past).all()), f"{what}: NaN past the end")
            self.c.that(labels is None or stack.labels == labels, f"{what}: {stack.labels}, {labels}")
            self.c.that(not true.size or true.dtype == np.float64 and got.dtype == np.float32,
                        f"{what}: {true.dtype}, {got.dtype}")
            off = {"float64": error(got, true), "its float64": error(same, true), "own": error(got, own)}
            close = np.array_equal(got, same) if exact else off["float64"] <= 2 * off["its float64"] + FEW
            self.c.that(close and off["own"] <= OWN, f"{what}: off by {off}")
            for against, value in off.items():
                found[against] = max(found.get(against, 0.0), value)


def layers(m: Model) -> Iterator[tuple[int | None, bool]]:
    """Layers and mlp_input."""
    for layer in sorted({0, 1, m.n - 1, m.n}) + [-1, None]:
        yield layer, False
        if layer is not None and 0 <= layer < m.n:
            yield layer, True


def check_decompose(m: Model) -> None:
    for layer, mlp in layers(m):
        for mode in ("all", "mlp", "attn"):
            for embeds in (True, False):
                if mlp and m.parallel and mode != "mlp":
                    continue  # bug 3
                if layer == 0 and not embeds and not (mlp and mode != "mlp"):
                    continue  # bug 5
                for ln in (False, True):
                    for pos in POSITIONS:
                        more: dict[str, Any] = {"layer": layer, "mlp_input": mlp, "mode": mode, "apply_ln": ln,
                                                "incl_embeds": embeds}
                        m.compare(f"decompose_resid({more}, pos={pos})",
                                  lambda: m.run.decompose_resid(pos=pos, **more),
                                  lambda i, cache: cache.decompose_resid(pos_slice=pos, return_labels=True, **more), not ln)


def check_accumulated(m: Model) -> None:
    for layer, mlp in layers(m):
        for mid in (False, True):
            if m.parallel and (mid or mlp):
                continue  # bug 3; there is no resid_mid
            for ln in (False, True):
                for pos in POSITIONS:
                    more: dict[str, Any] = {"layer": layer, "mlp_input": mlp, "incl_mid": mid, "apply_ln": ln}
                    m.compare(f"accumulated_resid({more}, pos={pos})",
                              lambda: m.run.accumulated_resid(pos=pos, **more),
                              lambda i, cache: cache.accumulated_resid(pos_slice=pos, return_labels=True, **more), not ln)


def check_heads(m: Model) -> None:
    for layer, mlp in layers(m):
        for rest in (False, True):
            if mlp or layer == 0 and rest:
                continue  # bug 2
            for ln in (False, True):
                for pos in POSITIONS:
                    more: dict[str, Any] = {"layer": layer, "incl_remainder": rest, "apply_ln": ln}
                    for run, weights in ((m.run, None), (m.by_z, m.weights)):
                        if layer == 0 and weights is None:
                            continue
                        m.compare(f"stack_head_results({more}, pos={pos}, from {'z' if weights else 'result'})",
                                  lambda: run.stack_head_results(pos=pos, weights=weights, **more),
                                  lambda i, cache: cache.stack_head_results(pos_slice=pos, return_labels=True, **more),
                                  not ln and not rest and weights is None, run)


def check_parts(m: Model) -> None:
    """Neurons, and the whole decomposition with neurons and without."""
    for layer in sorted({1, m.n}) + [-1]:
        for ln in (False, True):
            for pos in POSITIONS:
                m.compare(f"stack_neuron_results({layer}, {ln}, pos={pos})",
                          lambda: m.run.stack_neuron_results(layer=layer, apply_ln=ln, pos=pos, weights=m.weights),
                          lambda i, cache: cache.stack_neuron_results(layer, pos_slice=pos, return_labels=True, apply_ln=ln),
                          not ln)
                for expand in (False, True):
                    more: dict[str, Any] = {"layer": layer, "expand_neurons": expand, "apply_ln": ln}
                    m.compare(f"get_full_resid_decomposition({more}, pos={pos})",
                              lambda: m.run.get_full_resid_decomposition(pos=pos, weights=m.weights, **more),
                              lambda i, cache: cache.get_full_resid_decomposition(pos_slice=pos, return_labels=True, **more),
                              False)


def norm_of(tl: Any, n: int, layer: int, mlp: bool) -> Any:
    return tl.ln_final if layer in (-1, n) else getattr(tl.blocks[layer], "ln2" if mlp else "ln1")


def check_ln(m: Model) -> None:
    """Also with what ActivationCache of 2.16 has no call for: each component through the norm itself."""
    for layer, mlp in layers(m):
        layer = -1 if layer is None else layer
        for pos in POSITIONS:
            stack = m.run.accumulated_resid(pos=pos)
            m.compare(f"apply_ln_to_stack({layer}, {mlp}, pos={pos})",
                      lambda: m.run.apply_ln_to_stack(stack, layer, mlp_input=mlp),
                      lambda i, cache: (cache.apply_ln_to_stack(cache.accumulated_resid(pos_slice=pos), layer, mlp,
                                                                pos_slice=pos), stack.labels), False)
            m.compare(f"apply_ln_to_stack recomputed({layer}, {mlp}, pos={pos})",
                      lambda: m.run.apply_ln_to_stack(stack, layer, mlp_input=mlp, recompute_ln=True, weights=m.weights),
                      lambda i, cache: (norm_of(cache.model, m.n, layer, mlp)(cache.accumulated_resid(pos_slice=pos)),
                                        stack.labels), False)
        if m.folded:
            continue
        m.compare(f"apply_ln_to_stack with weights({layer}, {mlp})",
                  lambda: m.run.apply_ln_to_stack(m.run.accumulated_resid(), layer, mlp_input=mlp, weights=m.weights),
                  lambda i, cache: (cache.apply_ln_to_stack(cache.accumulated_resid(), layer, mlp)
                                    * norm_of(cache.model, m.n, layer, mlp).w, None), False)


def check_attrs(m: Model) -> None:
    """Where ln_final is not folded (bug 1), with its weight in TransformerLens's W_U for the while."""
    kept = m.tl.unembed.W_U.data
    if not m.folded:
        for tl in (m.tl, m.tl64):
            tl.unembed.W_U.data = tl.ln_final.w[:, None] * tl.unembed.W_U.data
    weights = {**m.weights, "unembed.W_U": kept}
    next_tokens = np.where(m.run.mask(), m.run.tokens(), -1)
    for pos in POSITIONS:
        several = isinstance(pos, slice) or pos is None
        for name, tokens, wrong in (("a number", 7, None), ("two numbers", 7, 9), ("each prompt", m.good, None),
                                    ("each prompt, two", m.good, m.bad)):
            def theirs(i: int, cache: ActivationCache, stack_of: Callable[..., Any]) -> tuple[torch.Tensor, None]:
                good, bad = (t if t is None or isinstance(t, int) else int(t[i]) for t in (tokens, wrong))
                return cache.logit_attrs(stack_of(cache), good, bad, pos_slice=pos), None
            for what, ours, stack_of in (
                    ("decompose_resid", lambda: m.run.decompose_resid(pos=pos), lambda c: c.decompose_resid(pos_slice=pos)),
                    ("heads", lambda: m.run.stack_head_results(pos=pos), lambda c: c.stack_head_results(pos_slice=pos))):
                m.compare(f"logit_attrs({what}, {name}, pos={pos})",
                          lambda: m.run.logit_attrs(ours(), tokens, wrong, weights=weights),
                          lambda i, cache: theirs(i, cache, stack_of), False)
        if not several:
            continue
        at = m.run.positions(pos=pos)[:, :max(m.run.lengths)]
        each = np.where(at < 0, -1, np.take_along_axis(next_tokens, np.maximum(at, 0), 1))
        m.compare(f"logit_attrs(each position, pos={pos})",
                  lambda: m.run.logit_attrs(m.run.decompose_resid(pos=pos), each, weights=weights),
                  lambda i, cache: (cache.logit_attrs(cache.decompose_resid(pos_slice=pos),
                                                      torch.from_numpy(each[i][each[i] >= 0])[None].long(),
                                                      pos_slice=pos), None), False)
    m.tl.unembed.W_U.data = kept
    # The sum, with the biases that no component has, is the file's own logit.
    attrs = m.run.logit_attrs(m.run.decompose_resid(pos="read"), m.good, m.bad, weights=m.weights)
    bias = m.weights["unembed.b_U"].double()
    if "ln_final.b" in m.weights:
        bias = bias + m.weights["ln_final.b"].double() @ m.weights["unembed.W_U"].double()
    total = np.asarray(attrs).sum(0, dtype=np.float64) + (bias[m.good] - bias[m.bad]).numpy()
    scale = np.abs(np.asarray(attrs)).sum(0).max()
    off = float(np.abs(total - m.run.results["logit_diff"][:, 0]).max() / scale)
    m.c.that(off < SAME, f"{m.what}: the sum of logit_attrs and biases is logit_diff: off by {off:.1e} of the components")
    m.worst["sum against logit_diff"] = {"components": off}


def raises(use: Callable[[], Any], *kinds: type[Exception]) -> bool:
    try:
        use()
    except kinds:
        return True
    return False


def bugs(m: Model) -> None:
    """TransformerLens does what is said above, and ours what is defined."""
    c, run, what = m.c, m.run, m.what
    i = int(np.argmax(run.lengths))
    cache, good, bad = m.filled[i], int(m.good[i]), int(m.bad[i])
    stack = cache.decompose_resid()
    if not m.folded:  # 1
        mine = np.asarray(run.logit_attrs(run.decompose_resid(), m.good, m.bad, weights=m.weights))[:, i]
        plain = cache.logit_attrs(stack, good, bad).numpy()[:, 0]
        gain = m.weights["ln_final.w"]
        wanted = (cache.apply_ln_to_stack(stack) * gain * (m.tl.W_U[:, good] - m.tl.W_U[:, bad])).sum(-1).numpy()[:, 0]
        off = error(mine[:, :wanted.shape[1]], wanted), error(plain, wanted)
        c.that(off[0] < SAME and off[1] > 0.01, f"{what}: bug 1: {off}")
    rest = cache.stack_head_results(0, incl_remainder=True).numpy()  # 2
    mine = run.stack_head_results([i], 0, incl_remainder=True)
    c.that(np.array_equal(rest[0], cache["resid_post", -1]) and mine.labels == ["remainder"]
           and np.array_equal(mine[0], cache["resid_pre", 0]), f"{what}: bug 2")
    if m.parallel:  # 3
        theirs, mine = cache.decompose_resid(1, mlp_input=True), run.decompose_resid([i], 1, mlp_input=True)
        read = cache["resid_pre", 1].numpy()
        c.that(error(np.asarray(mine).sum(0), read) < SAME and error(theirs.sum(0).numpy(), read) > 0.01
               and mine.labels == run.decompose_resid([i], 1).labels, f"{what}: bug 3, decompose_resid")
        mine = run.accumulated_resid([i], 1, mlp_input=True, apply_ln=True)
        want = cache.apply_ln_to_stack(cache.accumulated_resid(1), 1, mlp_input=True)
        c.that(raises(lambda: cache.accumulated_resid(1, mlp_input=True), KeyError)
               and error(np.asarray(mine), want.numpy()) < SAME, f"{what}: bug 3, accumulated_resid")
        c.that(raises(lambda: run.accumulated_resid([i], incl_mid=True), h5lens.H5LensError), f"{what}: incl_mid")
    two = [int(np.argmin(run.lengths)), i]  # 4: two prompts, two positions
    both = ActivationCache(run.activation_cache(two, pos=SEVERAL, torch=True), m.tl)
    ids = torch.tensor([7, 9])
    theirs = both.logit_attrs(both.decompose_resid(), ids).numpy()
    without_1 = {**m.weights, "ln_final.w": torch.ones(m.tl.cfg.d_model)}
    mine = run.logit_attrs(run.decompose_resid(two, pos=SEVERAL), [7, 9], weights=without_1)
    right = [both.logit_attrs(both.decompose_resid(), int(t)).numpy()[:, k] for k, t in enumerate(ids)]
    off = error(np.asarray(mine), np.stack(right, 1)), error(theirs, np.stack(right, 1))
    c.that(off[0] < SAME and off[1] > 0.01, f"{what}: bug 4: {off}")
    for mode in ("all", "mlp", "attn"):  # 5
        mine = run.decompose_resid([i], 0, incl_embeds=False, mode=mode)
        c.that(raises(lambda: cache.decompose_resid(0, incl_embeds=False, mode=mode), RuntimeError)
               and mine.shape == (0, 1, run.lengths[i], m.tl.cfg.d_model) and mine.labels == [], f"{what}: bug 5")
    for ours in (run.accumulated_resid, run.decompose_resid):  # 6
        c.that(raises(lambda: ours([i], mlp_input=True), ValueError), f"{what}: mlp_input at the end")
    ignores = m.parallel or torch.equal(cache.accumulated_resid(mlp_input=True), cache.accumulated_resid())
    c.that(ignores and raises(lambda: cache.decompose_resid(mlp_input=True), KeyError), f"{what}: bug 6")


def check_one_row(m: Model) -> None:
    """A single row has no dimension: TransformerLens's remove_batch_dim."""
    i = int(np.argmax(m.run.lengths))
    alone = ActivationCache(m.run.activation_cache([i], torch=True), m.tl).remove_batch_dim()
    for pos in POSITIONS:
        for ours, theirs in ((m.run.decompose_resid(i, apply_ln=True, pos=pos),
                              alone.decompose_resid(apply_ln=True, pos_slice=pos)),
                             (m.run.accumulated_resid(i, pos=pos), alone.accumulated_resid(pos_slice=pos)),
                             (m.run.stack_head_results(i, pos=pos), alone.stack_head_results(pos_slice=pos))):
            m.c.that(error(np.asarray(ours), theirs.numpy()) < SAME, f"{m.what}: one row, pos={pos}")


def check_model(c: Checks, binary: Path, folder: Path, tmp: Path, raw: bool) -> None:
    what = f"{folder.name}{' raw' if raw else ''}"
    hf = load_hf(str(folder), torch.float32)
    if why := tl_cannot(hf.config):
        print(f"  {what}: {why}")
        return
    tl = load_tl(hf, {f: not raw for f in truth.PROCESSING}, torch.float32)
    for name, hooks in (("result.h5", "*,logits,*hook_result"), ("z.h5", "*")):
        run_program(binary, folder, tmp / name, hooks, *(["--raw-weights"] if raw else []))
    with h5lens.open_run(tmp / "result.h5") as run, h5lens.open_run(tmp / "z.h5") as by_z:
        m = Model(c, what, run, by_z, tl)
        for check in (check_decompose, check_accumulated, check_heads, check_parts, check_ln, check_attrs, check_one_row,
                      bugs):
            check(m)
    print(f"  {what}: lengths {sorted(set(run.lengths.tolist()))}; largest errors over the RMS, against float64 / TransformerLens's "
          "against it / ours against its own run: "
          + ", ".join(f"{name} {' / '.join(f'{e:.1e}' for e in found.values())}" for name, found in m.worst.items()),
          flush=True)


def main() -> int:
    args = parser_of(__doc__).parse_args()
    logging.set_verbosity_error()
    c = Checks()
    with tempfile.TemporaryDirectory() as tmp, torch.inference_mode():
        for folder in models_of(args):
            for raw in (False, True):
                check_model(c, args.h5lens, folder, Path(tmp), raw)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
