#!/usr/bin/env python3
"""Whether attention that is cut (knockout) and steering are what Hugging Face's modules say, in float64.

    check_steering.py [--h5lens build/h5lens] [MODEL_DIR …]

For each model (by default the demo's and tests/golden/data/*), with BOS and without, raw and processed, it runs h5lens on
ragged prompts, some read before their end, and compares

    /results/knockout/<table>   keys and queries by lists and by texts, all layers or the last, all heads or one
    /results/steer/<table>      a random vector at every hook point, in the first and the last layer, at all positions or two

with Hugging Face's model in float64 on its raw weights: a mask of scores before the softmax, forward hooks that add
(scripts/patching_refs.py). Processing changes none of it but answer_logit, which is centred, and not compared then. A
table passes if every value is within what tests/golden/test_golden.c allows that of an ordinary run (LIMIT of
check_patching.py, in units of the RMS of float64's values); a rank, if it is one that logits so far off could have.

What must be equal is compared bit for bit: scale 0, and a cut behind what is read, with the run's own tables; shards,
threads, the order of rows, a vector's file (.npy of float32 or float64, HDF5), on each CPU level. Dimensions, types,
fill values and labels are looked at, and rows that cannot be cut must be refused.

Prints a line a model and a line a family and table, 'N passed, N failed'; exit status 1 on a failure. Needs torch,
transformers and h5py; no test of `make test`.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from transformers.utils.logging import set_verbosity_error

from check_attrs import family_of
from check_head_scores import encoded
from check_patching import CPUS, LIMIT, Program, Row, rows_of, same_bits
from checks import Checks, models_of, parser_of
from fidelity_errors import Error
from patching_refs import Edit, Edits, HuggingFace, metrics_of

TABLES = ("logit_diff", "answer_logit", "answer_logprob", "answer_rank", "top_tokens")
FLOATS = ("logit_diff", "answer_logit", "answer_logprob")
HOOKS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z")
SCALES = (-2.0, 0.0, 0.5)
FROM_FILE = ("v.npy", "v.h5:/a/direction", "wide.npy")
WAYS = {"in shards": ("--set", "shards.prompts=3"), "on one thread": ("--threads", "1")}
Errors = dict[tuple[str, str], Error]  # by family and table


# --- what is asked for ------------------------------------------------------------------------

@dataclass
class Cut:
    """Lists of positions, or a text."""

    keys: tuple[int, ...] | str
    queries: tuple[int, ...] | str
    last_layer: bool = False
    one_head: bool = False

    def settings(self, model: HuggingFace) -> list[str]:
        def place(x: tuple[int, ...] | str) -> str:
            return json.dumps({"find": x, "nth": -1} if isinstance(x, str) else list(x))

        last = model.n_layers - 1
        found = [f"knockout.from={place(self.keys)}", f"knockout.to={place(self.queries)}"]
        return found + ([f"knockout.layers={last}"] if self.last_layer else []) + ([f"knockout.heads={last}.{model.heads - 1}"] if self.one_head else [])

    def edits(self, model: HuggingFace, row: Row, word: int) -> Edits:
        keys, queries = (positions(row, x, word) for x in (self.keys, self.queries))
        heads: Any = [model.heads - 1] if self.one_head else slice(None)

        def cut(x: torch.Tensor) -> None:
            for q in queries:
                for k in keys:
                    x[:, heads, q, k] = -torch.inf

        only_last = self.last_layer or self.one_head
        return {("scores", layer): cut for layer in range(model.n_layers) if not only_last or layer == model.n_layers - 1}


CUTS = (Cut((0,), (-1,)), Cut(" the", (-1, 3)), Cut((0, 2), " the", one_head=True), Cut((1, -2, 5), (-1, 2), last_layer=True),
        Cut(" the", (-1,), last_layer=True))


def positions(row: Row, place: tuple[int, ...] | str, word: int) -> list[int]:
    """Those that a prompt has; of a text, where it is for the last time: it is one token, word."""
    if isinstance(place, str):
        return [max((i for i, t in enumerate(row.tokens[0]) if t == word), default=-1)]
    return sorted({p % row.n for p in place if -row.n <= p < row.n})


def window_of(model: HuggingFace) -> int:
    c = model.model.config
    return getattr(c, "window_size", None) or getattr(c, "sliding_window", None) or 0


def can_be_cut(model: HuggingFace, row: Row, cut: Cut, word: int) -> bool:
    """No query loses all of its keys, and a text is there. Strict where only some layers have windows."""
    keys, queries = (positions(row, x, word) for x in (cut.keys, cut.queries))
    first = {q: max(0, q + 1 - (window_of(model) or q + 1)) for q in queries}
    return -1 not in keys + queries and all(set(range(first[q], q + 1)) - set(keys) for q in queries)


@dataclass
class Steer:
    hook: str
    layer: int
    where: tuple[int, ...]  # none: everywhere
    file: str

    def settings(self, tmp: Path) -> list[str]:
        found = [f"steer.vector={tmp / self.file}", f"steer.hook={self.hook}", f"steer.layer={self.layer}",
                 f"steer.scale={json.dumps(SCALES)}"]
        return found + ([f"steer.positions={json.dumps(self.where)}"] if self.where else [])

    def edits(self, row: Row, scale: float, vector: np.ndarray) -> Edits:
        v = torch.from_numpy(vector.astype(np.float64))
        at = positions(row, self.where, -1) if self.where else range(row.n)

        def add(x: torch.Tensor) -> None:
            for p in at:
                x[:, p] += scale * v.reshape(x.shape[2:])

        edit: Edit = add
        return {(self.hook, self.layer): edit}


def vectors(model: HuggingFace, tmp: Path, hook: str) -> np.ndarray:
    """Written to all of FROM_FILE; they have the same values."""
    width = model.heads * model.d_head if hook == "z" else model.model.config.hidden_size
    v = np.random.RandomState(len(hook)).standard_normal(width).astype(np.float32)
    np.save(tmp / "v.npy", v[None])
    np.save(tmp / "wide.npy", v.astype(np.float64))
    with h5py.File(tmp / "v.h5", "w") as f:
        f["a/direction"] = v
    return v


# --- comparing --------------------------------------------------------------------------------

def could_rank(logits: np.ndarray, answer: int, rank: int, room: float) -> bool:
    others = np.delete(logits, answer) - logits[answer]
    return int((others > room).sum()) <= rank <= int((others > -room).sum())


def compare(c: Checks, what: str, errors: Errors, family: str, got: dict[str, np.ndarray], logits: torch.Tensor, row: Row, raw: bool) -> None:
    """got: a row's values by table; logits: at its read position, [V]."""
    want = metrics_of(logits, logits, row.ids)
    for table in FLOATS:
        if raw or table != "answer_logit":
            errors.setdefault((family, table), Error()).add(got[table], want[table])
    x = logits.numpy()
    room = 2 * LIMIT["answer_logit"] * float(np.sqrt(np.mean(x * x)))
    for k, answer in enumerate(row.ids):
        c.that(could_rank(x, answer, int(got["answer_rank"][k]), room), f"{what}: rank {got['answer_rank'][k]} of answer {k}")
    order = x[got["top_tokens"]]
    c.that(bool((order[:-1] >= order[1:] - room).all()) and bool(x.max() - order[0] <= room), f"{what}: top_tokens")


def tables_of(got: dict[str, Any], group: str, at: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {t: got[f"{group}/{t}"][at] for t in TABLES}


# --- one run ----------------------------------------------------------------------------------

def settings_of(settings: list[str], *more: str) -> list[str]:
    return ["--tables", ",".join(TABLES), *(x for s in settings for x in ("--set", s)), *more]


def check_file(c: Checks, what: str, p: Program, got: dict[str, Any]) -> None:
    for group, axes in (("steer", ["scale"]), ("knockout", [])):
        for table in (*TABLES, "top_logits", "top_probs"):
            name, plain = f"{group}/{table}", got["dims"][table]
            c.that(got["dims"].get(name) == [plain[0], *axes, *plain[1:]], f"{what}: {name}: {got['dims'].get(name)}")
            c.that(got[name].dtype == got[table].dtype, f"{what}: {name}: {got[name].dtype}")
    with h5py.File(p.out) as f:
        c.that([float(x) for x in f["scale"].asstr()[:]] == list(SCALES), f"{what}: labels {f['scale'][:]}")
        c.that(f["results/steer/answer_rank"].fillvalue == -1 and bool(np.isnan(f["results/steer/logit_diff"].fillvalue)), f"{what}: fill values")
        c.that(len(f.attrs["sha256_steer_vector"]) == 64 and Path(f.attrs["path_steer_vector"].split(":")[0]).exists(), f"{what}: attributes")


def check_itself(c: Checks, what: str, got: dict[str, Any], rows: list[Row], cut: Cut, word: int) -> None:
    """Scale 0, and cuts of queries that nobody reads, are the run."""
    zero = SCALES.index(0.0)
    for table in (*TABLES, "top_logits", "top_probs"):
        c.that(same_bits(got[f"steer/{table}"][:, zero].copy(), got[table]), f"{what}: {table} of scale 0")
        for i, row in enumerate(rows):
            if min(positions(row, cut.queries, word)) > row.at:
                c.that(same_bits(got[f"knockout/{table}"][i], got[table][i]), f"{what}: {table} of row {i}, cut behind what is read")


def check_ways(c: Checks, what: str, p: Program, rows: list[Row], got: dict[str, Any], settings: list[str], tmp: Path) -> None:
    names = [name for name in got["dims"] if "/" in name]
    for way, more in WAYS.items():
        again = p.run(rows, *settings_of(settings, *more))
        for name in names:
            c.that(same_bits(again[name], got[name]), f"{what} {way}: {name}")
    again = p.run(rows[::-1], *settings_of(settings))
    for name in names:
        c.that(same_bits(again[name][::-1].copy(), got[name]), f"{what}, rows in reverse: {name}")
    for file in FROM_FILE:
        again = p.run(rows, *settings_of([*settings, f"steer.vector={tmp / file}"]))
        for name in names:
            c.that(same_bits(again[name], got[name]), f"{what}, vector of {file}: {name}")


def check_refused(c: Checks, what: str, p: Program, rows: list[Row], cut: Cut, model: HuggingFace) -> None:
    if not rows:
        return
    command = p.command(rows, *settings_of(cut.settings(model)))
    run = subprocess.run(command, capture_output=True, text=True)
    told = "nothing to attend to" in run.stderr or "is not in the prompt" in run.stderr
    c.that(run.returncode == 1 and told and f"{len(rows)} of {len(rows)} rows" in run.stderr, f"{what}: refused: {run.returncode} {run.stderr}")


def cases(model: HuggingFace) -> Iterator[tuple[Steer, Cut]]:
    """Each hook point in two layers, and with it a cut."""
    hooks = [h for h in HOOKS if h != "resid_mid" or not model.parallel]
    for i, hook in enumerate(hooks):
        for k, layer in enumerate((0, model.n_layers - 1)):
            yield Steer(hook, layer, ((), (1, -1))[(i + k) % 2], FROM_FILE[i % 3]), CUTS[(2 * i + k) % len(CUTS)]


# --- models -----------------------------------------------------------------------------------

def check_model(c: Checks, errors: Errors, binary: Path, folder: Path, tmp: Path, bos: bool) -> None:
    model, family, what = HuggingFace(folder, torch.float64), family_of(folder), f"{folder.name}{'' if bos else ' without BOS'}"
    every, word = rows_of(folder, bos), encoded(folder, [" the"], False)[0][0]
    n = 0
    for steer, cut in cases(model):
        rows = [r for r in every if can_be_cut(model, r, cut, word)]
        rest = [r for r in every if not can_be_cut(model, r, cut, word)]
        vector = vectors(model, tmp, steer.hook)
        if not rows:
            continue
        steered = [[model.run(torch.tensor([r.tokens[0]]), steer.edits(r, s, vector))[0, r.at].clone() for s in SCALES] for r in rows]
        knocked = [model.run(torch.tensor([r.tokens[0]]), cut.edits(model, r, word))[0, r.at].clone() for r in rows]
        settings = steer.settings(tmp) + cut.settings(model)
        for raw in (True, False):
            p = Program(binary, folder, tmp / "out.h5", bos, raw)
            for cpu in CPUS:
                at = f"{what}{' raw' if raw else ''} {cpu}: {' '.join(settings)}"
                got = p.run(rows, *settings_of(settings, "--cpu", cpu))
                check_file(c, at, p, got)
                check_itself(c, at, got, rows, cut, word)
                for i, row in enumerate(rows):
                    for k in range(len(SCALES)):
                        compare(c, f"{at}: row {i}", errors, family, tables_of(got, "steer", (i, k)), steered[i][k], row, raw)
                    compare(c, f"{at}: row {i}", errors, family, tables_of(got, "knockout", (i,)), knocked[i], row, raw)
                    n += 1
            if steer.hook == "resid_post" and raw:
                check_ways(c, at, p, rows, got, settings, tmp)
                if not window_of(model):
                    check_refused(c, at, p, rest, cut, model)
    print(f"  {what}: {n} prompts steered and cut", flush=True)


def judge(c: Checks, errors: Errors) -> None:
    for (family, table), error in errors.items():
        rms, largest = error.relative()
        c.that(largest <= LIMIT[table] and not error.wrong, f"{family}: {table}: {largest:.1e} {error.wrong}")
        print(f"  {family:22s} {table:14s} rms {rms:.1e}, largest {largest:.1e}, limit {LIMIT[table]:.1e}")


def main() -> int:
    args = parser_of(__doc__).parse_args()
    set_verbosity_error()
    logging.disable(logging.WARNING)
    c, errors = Checks(), {}
    torch.set_num_threads(1)  # tiny models
    with tempfile.TemporaryDirectory() as tmp, torch.inference_mode():
        for folder in models_of(args):
            for bos in (True, False):
                check_model(c, errors, args.h5lens, folder, Path(tmp), bos)
    print("errors in units of the RMS of float64's values")
    judge(c, errors)
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
