#!/usr/bin/env python3
"""Whether the attributions, lens differences and tables of every position are TransformerLens 2.16's.

    check_attrs.py [--h5lens build/h5lens] [MODEL_DIR …]

For each model (by default the demo's and tests/golden/data/*) it writes prompts of BOS and 1 token to the whole context
with three answers, runs h5lens on them (each CPU level, one of them in shards; processed and raw weights; both lenses)
and TransformerLens in float32, and compares both with float64 (scripts/truth.py):

    logit_attrs       cache.logit_attrs(cache.decompose_resid(mode="all", return_labels=True, …), answer, …)
    head_attrs        cache.logit_attrs(cache.stack_head_results(…), answer, …)
    neuron_attrs      cache.logit_attrs(cache.stack_neuron_results(…), answer, …)
    all/…             the first two with attrs.positions: all, and no pos_slice
    lens_logit_diff   accumulated_resid(apply_ln=True) @ W_U; and, recomputed, unembed(ln_final(accumulated_resid()))
    entropy, pos_top_*  of the logits

Labels have to be equal, but for the last component: TransformerLens has no bias among them. What it leaves out is
compared with what its weights say: unembed_bias with b_U, and b @ W_U where ln_final is not folded; and an unfolded
ln_final's weight, which its logit_attrs forgets, goes into W_U for the call. So processed weights are compared as they
are, raw ones with a TransformerLens that was helped: its own sums would not be the logit. Where a norm follows attention
and the MLP (gemma2), its heads and neurons are divided by that norm's scale and multiplied by its weight, which it forgets
too. Then the sum of each prompt's logit_attrs (soft-capped where logits are) is compared with its answer_logit, and the
file's largest_deviation with both, and with its bound (include/h5lens/tables.h). float64 itself is compared with
Hugging Face's modules in float64 (scripts/attr_refs.py, raw weights), whose sums have to be the logit, what attention adds
and what the MLP adds; the same in float32 stands for TransformerLens where it cannot hold a model. Those of every position are compared with the stored logits there, and at the read position
with the bits of attrs.positions: read.

Errors are in units of the RMS of a model's float64 values. A table passes if, over the models of a family and all ways
together, it is as close to float64 as TransformerLens (RMS no larger, the largest error at most 1.5 times its largest:
the rule of fidelity.py and tests/support/fidelity.h; in one tiny model it is chance who rounds better), or if every
model is within the limit of tests/golden/test_golden.c. Prints a line a model and table, a line a family and table,
'N passed, N failed'; exit status 1 on a failure. Needs torch, transformers, transformer_lens 2.16 and h5py; no test of
`make test`.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from transformers.utils.logging import set_verbosity_error

import truth
from attr_refs import Attributions
from check_head_scores import Tokens, encoded, n_ctx_of, texts
from checks import Checks, models_of, parser_of
from fidelity_errors import Error
from fidelity_refs import load_hf, load_tl, tl_cannot, tl_lens, tl_notes
from make_golden import UNDECIDED, decided

MAX_FACTOR = 1.5  # fidelity.py's
RANDOM = 30  # prompts
SAME = 1e-12  # two float64 runs, in units of RMS
TABLES = "answer_logit,logit_attrs,head_attrs,neuron_attrs,lens_logit_diff,pos_top_tokens,entropy"
LIMIT = {"logit_attrs": 8e-6, "head_attrs": 6e-6, "all/logit_attrs": 8e-6, "all/head_attrs": 6e-6, "neuron_attrs": 2.4e-5, "entropy": 8e-6, "pos_top_logits": 6e-6,
         "pos_top_probs": 3e-5, **{f"{mode}/lens_logit_diff": 7e-6 for mode in truth.LENS_MODES}}
AT_ALL = ("logit_attrs", "head_attrs")  # with attrs.positions: all
BY_POS = ("entropy", "pos_top_tokens", "pos_top_logits", "pos_top_probs")
WAYS = {"avx2": ("--cpu", "avx2"), "auto": ("--cpu", "auto", "--set", "shards.prompts=3")}
Tables = dict[str, np.ndarray]


# --- TransformerLens ----------------------------------------------------------------------

@contextlib.contextmanager
def weight_in_unembed(model: Any) -> Iterator[None]:
    """An unfolded ln_final's weight is part of W_U while logit_attrs asks for directions."""
    plain = model.unembed.W_U.data
    if hasattr(model.ln_final, "w"):
        model.unembed.W_U.data = model.ln_final.w[:, None] * plain
    yield
    model.unembed.W_U.data = plain


def as_added(model: Any, cache: Any, stack: torch.Tensor, norm: str, pos: int | slice = -1) -> torch.Tensor:
    """stack [part, …, D], each layer's parts together: as they are added to the stream."""
    if not model.cfg.use_normalization_before_and_after:
        return stack
    every = stack.unflatten(0, (model.cfg.n_layers, -1)).clone()
    for l, (parts, block) in enumerate(zip(every, model.blocks)):
        parts *= getattr(block, norm).w / cache[f"blocks.{l}.{norm}.hook_scale"][:, pos]
    return every.flatten(0, 1)


def attrs_of(model: Any, cache: Any, stack: torch.Tensor, answers: list[int], pos: int | None = -1) -> np.ndarray:
    """stack [part, 1, D] -> [part, answer]; pos None: [part, 1, pos, D] -> [part, pos, answer]"""
    with weight_in_unembed(model):
        each = [cache.logit_attrs(stack, torch.tensor(a), pos_slice=pos)[:, 0].numpy() for a in answers]
    return np.stack(each, -1)


def at_every_position(model: Any, cache: Any, answers: list[int], bias: np.ndarray) -> Tables:
    parts = attrs_of(model, cache, cache.decompose_resid(mode="all"), answers, None)
    heads = attrs_of(model, cache, as_added(model, cache, cache.stack_head_results(), "ln1_post", slice(None)), answers, None)
    return {"all/logit_attrs": np.concatenate([parts, np.broadcast_to(bias, parts[:1].shape)]),
            "all/head_attrs": heads.reshape(model.cfg.n_layers, -1, *heads.shape[1:])}


def by_position(logits: torch.Tensor) -> Tables:
    logprobs, top = torch.log_softmax(logits, -1), torch.topk(logits, 10)
    return {"pos_top_tokens": top.indices.numpy(), "pos_top_logits": top.values.numpy(),
            "pos_top_probs": torch.softmax(logits, -1).gather(-1, top.indices).numpy(),
            "entropy": -(logprobs.exp() * logprobs).sum(-1).numpy()}


def by_transformer_lens(model: Any, t: Tokens, answers: list[int]) -> tuple[Tables, list[list[str]]]:
    """Tables, and labels: of the components, the heads and the neurons."""
    logits, cache = model.run_with_cache(torch.tensor([t]))
    cache.compute_head_results()
    layers, bias = model.cfg.n_layers, model.b_U
    if hasattr(model.ln_final, "b"):
        bias = bias + model.ln_final.b @ model.W_U
    stacks = [cache.decompose_resid(mode="all", return_labels=True, pos_slice=-1),
              cache.stack_head_results(return_labels=True, pos_slice=-1),
              cache.stack_neuron_results(layer=-1, return_labels=True, pos_slice=-1)]
    added = (stacks[0][0], as_added(model, cache, stacks[1][0], "ln1_post"), as_added(model, cache, stacks[2][0], "ln2_post"))
    parts, heads, neurons = (attrs_of(model, cache, stack, answers) for stack in added)
    out = {"logit_attrs": np.concatenate([parts, bias[answers].numpy()[None]]),
           "head_attrs": heads.reshape(layers, -1, len(answers)),
           "neuron_attrs": neurons.reshape(layers, -1, len(answers)), **by_position(logits[0])}
    out |= at_every_position(model, cache, answers, bias[answers].numpy())
    for mode in truth.LENS_MODES:
        lens = tl_lens(model, cache, mode)
        out[f"{mode}/lens_logit_diff"] = lens[:, answers[:1]] - lens[:, answers[1:]]
    return out, [labels for _, labels in stacks]


# --- Hugging Face -------------------------------------------------------------------------

def by_hugging_face(model: Attributions, t: Tokens, answers: list[int]) -> tuple[Tables, dict[str, float]]:
    """Tables; how far its sums are off."""
    every, off, logits = model.tables(t, answers)
    at_read = {name: x if "lens" in name else x[..., -1, :] for name, x in every.items()}
    return {**at_read, **{f"all/{name}": every[name] for name in AT_ALL}, **by_position(logits)}, off


def check_exact(c: Checks, what: str, folder: Path, tokens: list[Tokens], answers: list[list[int]], want: list[Tables]) -> str:
    """float64 beside Hugging Face's modules in float64."""
    model, off, far = Attributions(folder, torch.float64), {}, 0.0
    for t, a, exact in zip(tokens, answers, want):
        got, sums = by_hugging_face(model, t, a)
        off = {name: max(x, off.get(name, 0.0)) for name, x in sums.items()}
        e = Error()
        for name in LIMIT:
            e.add(got[name], exact[name])
        far = max(far, e.relative()[1])
    c.that(far < SAME and max(off.values()) < SAME, f"{what}: Hugging Face in float64: {far:.1e}, sums {off}")
    return f"; Hugging Face in float64 {far:.1e}, its sums " + ", ".join(f"{name} {x:.1e}" for name, x in off.items())


# --- float64 ------------------------------------------------------------------------------

def in_float64(model: Any, t: Tokens, answers: list[int]) -> Tables:
    cache = truth.run(model, t)
    out = {**truth.tables(model, cache, answers), **truth.attr_tables(model, cache, answers),
           **truth.position_tables(cache)}
    out |= {f"all/{name}": x for name, x in truth.attr_position_tables(model, cache, answers).items()}
    out["pos_top_tokens"] = decided(out["pos_top_tokens"], cache["logits"])
    return {name: out[name] for name in (*LIMIT, "pos_top_tokens")}


# --- h5lens -------------------------------------------------------------------------------

def write_data(folder: Path, path: Path) -> tuple[list[str], list[list[str]]]:
    """Prompts, and the answers of each. Random ones too: the largest error of a few says little."""
    rng, n_ctx = np.random.RandomState(9), n_ctx_of(folder)
    some = [*"abcdefghijklmnopqrstuvwxyz", " the", " and", " to", " a"]
    rows = texts(folder, n_ctx) + ["".join(rng.choice(some, min(n_ctx, 48) - 1)) for _ in range(RANDOM)]
    words = [" Mary", " John", " cat", " and"] if (folder / "prompts.csv").exists() else [" and", " to", " the", " a"]
    answers = [[words[(i + k) % len(words)] for k in range(3)] for i in range(len(rows))]
    with open(path, "w", encoding="utf-8", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerows([["prompt", "a", "b", "c"], *([r, *a] for r, a in zip(rows, answers))])
    return rows, answers


def run_program(binary: Path, folder: Path, data: Path, out: Path, *more: str) -> None:
    subprocess.run([str(binary), "run", "--model", str(folder), "--data", str(data), "--answers", "a,b,c", "-o",
                    str(out), "--overwrite", "--quiet", *more], check=True)


def read_tables(f: h5py.File, lens: str) -> tuple[list[Tokens], list[Tables]]:
    """Of each prompt; what stands past its end is checked and left out."""
    lengths, rows = f["prompts/length"][:], []
    for i, n in enumerate(lengths):
        row = {name: x[i] for name, x in f["results"].items()}
        for name in BY_POS:
            past = row[name][n:]
            if not (np.isnan(past) if past.dtype.kind == "f" else past == -1).all():
                sys.exit(f"{name} of prompt {i}: {past} past its end")
            row[name] = row[name][:n]
        row[f"{lens}/lens_logit_diff"] = row.pop("lens_logit_diff")
        rows.append(row)
    return [t[:n].tolist() for t, n in zip(f["prompts/tokens"][:], lengths)], rows


def off_and_limit(attrs: np.ndarray, logit: np.ndarray, d: int, cap: float) -> tuple[float, float]:
    """How far Σ components, capped, is off at most, and the bound of include/h5lens/tables.h."""
    attrs = attrs.astype(np.float64)
    off = np.nanmax(np.abs(truth.capped(cap, attrs.sum(1)) - logit) / np.abs(attrs).sum(1))
    return off, (attrs.shape[1] + min(d, 128) + d // 128 + 4) * 2.0 ** -24 * d ** 0.5


def read_at_all(c: Checks, what: str, f: h5py.File, read: h5py.File, exact: Any) -> list[Tables]:
    """What attrs.positions: all wrote, beside the logits and what `read` wrote."""
    lengths, at = f["prompts/length"][:], f["prompts/read_pos"][:]
    every = {name: np.moveaxis(f[f"results/{name}"][:], -2, 1) for name in AT_ALL}  # [prompt, pos, …]
    for name, x in every.items():
        dims = [str(one[0].name) for one in f[f"results/{name}"].dims]
        c.that(dims[-2:] == ["/pos", "/answer"] and f[f"results/{name}"].dtype == np.float32, f"{what}: {name}, {dims}")
        there = np.arange(x.shape[1]) < lengths[:, None]
        c.that(bool((np.isfinite(x).reshape(*there.shape, -1) == there[..., None]).all()), f"{what}: {name}: where it is NaN")
        c.that(x[np.arange(len(x)), at].tobytes() == read[f"results/{name}"][:].tobytes(), f"{what}: {name}: other bits than read")
    logits = np.take_along_axis(f["cache/logits"][:], f["prompts/answers"][:][:, None], 2).astype(np.float64)
    d, cap = exact.weights["unembed.W_U"].shape[0], exact.cfg.logit_cap
    off, limit = off_and_limit(np.moveaxis(every["logit_attrs"], 1, 2), logits, d, cap)
    said = float(f["results/logit_attrs"].attrs["largest_deviation"])
    c.that(max(off, said) <= limit, f"{what}: at every position off {off:.1e}, said {said:.1e}, bound {limit:.1e}")
    c.that(said >= float(read["results/logit_attrs"].attrs["largest_deviation"]), f"{what}: {said:.1e} is less than read's")
    return [{f"all/{name}": np.moveaxis(x[i, :n], 0, -2) for name, x in every.items()} for i, n in enumerate(lengths)]


def check_sums(c: Checks, what: str, f: h5py.File, exact: Any) -> float:
    """Σ logit_attrs beside answer_logit. Returns the file's largest_deviation in units of the bound."""
    d, cap = exact.weights["unembed.W_U"].shape[0], exact.cfg.logit_cap
    off, limit = off_and_limit(f["results/logit_attrs"][:], f["results/answer_logit"][:].astype(np.float64), d, cap)
    said = float(f["results/logit_attrs"].attrs["largest_deviation"])
    c.that(said <= limit, f"{what}: largest_deviation {said:.1e}, bound {limit:.1e}")
    same = abs(said - off) <= 2.0 ** -24 + 1e-3 * said
    c.that(off <= limit if cap else same, f"{what}: largest_deviation {said:.3e}, of the rounded values {off:.3e}")
    return said / limit


# --- comparing ----------------------------------------------------------------------------

Errors = dict[str, Error]


def add(errors: Errors, rows: list[Tables], want: list[Tables]) -> None:
    for got, exact in zip(rows, want):
        for name in got.keys() & LIMIT.keys():
            errors.setdefault(name, Error()).add(got[name], exact[name])


def wrong_tokens(rows: list[Tables], want: list[Tables]) -> int:
    return sum(int(((a["pos_top_tokens"] != b["pos_top_tokens"]) & (b["pos_top_tokens"] != UNDECIDED)).sum())
               for a, b in zip(rows, want))


def check_labels(c: Checks, what: str, f: h5py.File, labels: list[list[str]] | None) -> None:
    if labels is None:
        return
    parts, heads, neurons = labels
    layers, n_heads, n_neurons = len(f["layer"]), len(f["head"]), len(f["neuron"])
    c.that(f["component"].asstr()[:].tolist() == [*parts, "unembed_bias"], f"{what}: labels {f['component'][:]}")
    c.that(heads == [f"L{l}H{h}" for l in range(layers) for h in range(n_heads)], f"{what}: heads {heads}")
    c.that(neurons == [f"L{l}N{n}" for l in range(layers) for n in range(n_neurons)], f"{what}: neurons {neurons[:5]}")


@dataclass
class Pool:
    """One table of a family: RMS and largest errors of its models."""

    theirs: list[tuple[float, float]] = field(default_factory=list)
    ours: list[tuple[float, float]] = field(default_factory=list)


Pools = dict[tuple[str, str], Pool]  # by family and table


def take(c: Checks, pool: Pool, what: str, name: str, ours: dict[str, Error], theirs: Error | None) -> str:
    """A table of one model; ours by way."""
    line = f"    {name:36s}"
    for who, e in (("the peer", theirs), *ours.items()):
        if e is None:
            continue
        c.that(not e.wrong, f"{what}: {name}, {who}: {e.wrong}")
        rms, largest = e.relative()
        (pool.theirs if e is theirs else pool.ours).append((rms, largest))
        line += f" {who} {rms:.1e} {largest:.1e}"
    return line


def pooled(errors: list[tuple[float, float]]) -> tuple[float, float]:
    """Not a number, and so not as close, where TransformerLens has none of the models."""
    if not errors:
        return float("nan"), float("nan")
    return float(np.sqrt(np.mean([rms * rms for rms, _ in errors]))), max(largest for _, largest in errors)


def judge(c: Checks, pools: Pools) -> None:
    for (family, name), pool in pools.items():
        rms, largest = pooled(pool.ours)
        t_rms, t_largest = pooled(pool.theirs)
        close = rms <= t_rms and largest <= MAX_FACTOR * t_largest
        c.that(close or largest <= LIMIT[name], f"{family}: {name}")
        print(f"  {family:22s} {name:36s} rms {rms:.1e} / {t_rms:.1e} = {rms / t_rms:.2f}, largest {largest:.1e} / "
              f"{t_largest:.1e} = {largest / t_largest:.2f}, limit {LIMIT[name]:.1e}: "
              f"{'as close' if close else 'within the limit' if largest <= LIMIT[name] else 'FAIL'}")


def family_of(folder: Path) -> str:
    """The model_type; of those that have one forward pass, as in test_golden.c, all."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    together = ("llama", "mistral", "qwen2", "qwen3"), ("gemma", "gemma2")
    return next((", ".join(kinds) for kinds in together if kind in kinds), kind)


def by_peer(folder: Path, hf: Any, raw: bool, tokens: list[Tokens], answers: list[list[int]]) -> tuple[list[Tables], Any]:
    """TransformerLens's tables and labels; of a model that it lacks Hugging Face's, raw only, and no labels."""
    if tl_cannot(hf.config):
        narrow = Attributions(folder, torch.float32) if raw else None
        return [by_hugging_face(narrow, t, a)[0] for t, a in zip(tokens, answers)] if narrow else [], None
    model = load_tl(hf, {f: not raw for f in truth.PROCESSING}, torch.float32)
    found = [by_transformer_lens(model, t, a) for t, a in zip(tokens, answers)]
    return [tables for tables, _ in found], found[0][1]


def check_model(c: Checks, pools: Pools, binary: Path, folder: Path, tmp: Path, raw: bool) -> None:
    what = f"{folder.name}{' raw' if raw else ''}"
    flags = {f: not raw for f in truth.PROCESSING}
    hf = load_hf(str(folder), torch.float32)
    why = tl_cannot(hf.config)
    exact = truth.load(str(folder), **flags)
    rows, words = write_data(folder, tmp / "data.csv")
    tokens = encoded(folder, rows, True)
    answers = [[encoded(folder, [w], False)[0][0] for w in a] for a in words]
    want = [in_float64(exact, t, a) for t, a in zip(tokens, answers)]
    peer, labels = by_peer(folder, hf, raw, tokens, answers)
    theirs: Errors = {}
    add(theirs, peer, want)
    ours: dict[str, Errors] = {name: {} for name in LIMIT}
    sums, different = [], [wrong_tokens(peer, want)]
    for way, more in WAYS.items():
        for lens in truth.LENS_MODES:
            run_program(binary, folder, tmp / "data.csv", tmp / "out.h5", "--hooks", "none", "--tables", TABLES,
                        "--set", f"lens={lens}", *more, *(("--raw-weights",) if raw else ()))
            with h5py.File(tmp / "out.h5") as f:
                got, tables = read_tables(f, lens)
                c.that(got == tokens, f"{what}: h5lens's tokens")
                check_labels(c, what, f, labels)
                sums.append(check_sums(c, what, f, exact))
            errors: Errors = {}
            add(errors, tables, want)
            for name, e in errors.items():
                ours[name][way] = e
            different.append(wrong_tokens(tables, want))
        run_program(binary, folder, tmp / "data.csv", tmp / "all.h5", "--hooks", "logits", "--tables", ",".join(AT_ALL),
                    "--attrs-positions", "all", *more, *(("--raw-weights",) if raw else ()))
        errors = {}
        with h5py.File(tmp / "all.h5") as f, h5py.File(tmp / "out.h5") as read:
            add(errors, read_at_all(c, f"{what} {way}", f, read, exact), want)
        for name, e in errors.items():
            ours[name][way] = e
    c.that(not any(different), f"{what}: pos_top_tokens that differ: {different}")
    lengths = sorted({len(t) for t in tokens})
    tied = check_exact(c, what, folder, tokens, answers, want) if raw else ""
    print(f"  {what}: {len(tokens)} prompts of {lengths[0]} to {lengths[-1]} tokens; rms and largest error; "
          f"largest_deviation {max(sums):.3f} of its bound{tied}{'; ' + why if why else ''}"
          + "".join(f"; {note}" for note in tl_notes(hf.config)))
    for name in LIMIT:
        pool = pools.setdefault((family_of(folder), name), Pool())
        print(take(c, pool, what, name, ours[name], theirs.get(name)), flush=True)


def main() -> int:
    args = parser_of(__doc__).parse_args()
    set_verbosity_error()
    logging.disable(logging.WARNING)
    c, pools = Checks(), Pools()
    with tempfile.TemporaryDirectory() as tmp, torch.inference_mode():
        for folder in models_of(args):
            for raw in (False, True):
                check_model(c, pools, args.h5lens, folder, Path(tmp), raw)
    print("ours / TransformerLens (Hugging Face in float32 where that has no such model), of all models of a family")
    judge(c, pools)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
