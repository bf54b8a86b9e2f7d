#!/usr/bin/env python3
"""How close h5lens and TransformerLens 2.16 (float32) are to a float64 run of the model.

    fidelity.py MODEL_DIR [--data CSV] [--h5lens BIN | --h5 OUT.h5] [--rows N] [--raw]
                [--refactor]
        runs scripts/truth.py, TransformerLens and h5lens on the CSV's prompts (MODEL_DIR's
        prompts.csv) and prints, for every hook point, RMS and largest error relative to the
        truth's RMS. The rule for h5lens: RMS no larger than TransformerLens's, the largest no
        more than 1.5 times. Without h5lens it prints TransformerLens's side. Exit code 1 when
        the rule is broken.

    fidelity.py MODEL_DIR --record FILE.csv
        writes TransformerLens's side of that table, for tests that compare h5lens with it
        without PyTorch: a line "variant,hook,tl_rms,tl_max" for each kind of hook
        ("blocks.*.attn.hook_q"); fidelity_errors.py has the formula. Where MODEL_DIR has a
        truth.h5 (scripts/make_golden.py), over the variants, prompts and hooks that are in it;
        else over all prompts and hooks, with the four flags on (processed) and off (raw).

    fidelity.py --check DIR ...
        ties scripts/truth.py to Hugging Face (float64, raw weights) and to TransformerLens
        (names, shapes, values, in float64 and float32, all 16 combinations of the weight
        processing flags; where positions are learned, refactored weights too) on the models
        in DIRs (tests/golden/data/*). What TransformerLens can't hold is said and left out.

    fidelity.py --make-random NAME DIR --tokenizer tokenizer.json[.gz]
        makes a random model of a known one's shape (random_models.py) with a prompts.csv.

Families: gpt2, gpt_neo, gpt_neox, llama, mistral, qwen2. Weights of 16 bits are widened for
all three. Needs torch, transformers, transformer_lens and h5py.
"""

from __future__ import annotations

import argparse
import csv
import decimal
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h5py
import numpy as np
import torch
from tokenizers import Tokenizer

import truth
import truth_weights
from fidelity_check import check
from fidelity_errors import Error, Errors, Prompt, by_kind, pooled, read_prompts
from fidelity_own import is_own, own_cannot
from fidelity_refs import load_hf, run_tl, tl_cannot, tl_loader, tl_notes, tl_tables
from random_models import SHAPES, write_random
from truth_weights import REFACTOR

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
MAX_FACTOR = 1.5
H5LENS_SETTINGS = ('cache.hooks=["*","logits","*hook_result"]',
                   "data.answers=[correct,incorrect]",
                   "tables=all")
TOKEN_TABLES = ("token_logprobs", "loss")


# --- the report ---------------------------------------------------------------------------

def ratio(a: float, b: float) -> float:
    return a / b if b > 0 else (1.0 if a == 0 else float("inf"))


def report(tl: Errors, ours: Errors | None) -> bool:
    """The table; true when every hook keeps the rule."""
    print(f"{'hook':34s} {'TL rms':>9s} {'TL max':>9s} {'rms':>9s} {'max':>9s} "
          f"{'rms/TL':>7s} {'max/TL':>7s}  verdict, worst layer")
    good = True
    for kind, hooks in by_kind(tl).items():
        t_rms, t_max = pooled(tl, hooks)
        line = f"{kind:34s} {t_rms:9.2e} {t_max:9.2e}"
        wrong = sorted({w for h in hooks for w in tl[h].wrong})
        if ours is None:
            worst = max(hooks, key=lambda h: tl[h].relative()[0])
            line += f" {'-':>9s} {'-':>9s} {'-':>7s} {'-':>7s}  {worst} {' '.join(wrong)}"
        else:
            wrong += sorted({w for h in hooks for w in ours[h].wrong})
            o_rms, o_max = pooled(ours, hooks)
            r_rms, r_max = ratio(o_rms, t_rms), ratio(o_max, t_max)
            ok = not wrong and r_rms <= 1.0 and r_max <= MAX_FACTOR
            good = good and ok
            worst = max(hooks, key=lambda h: (bool(ours[h].wrong), ratio(
                ours[h].relative()[0], tl[h].relative()[0])))
            line += (f" {o_rms:9.2e} {o_max:9.2e} {r_rms:7.3f} {r_max:7.3f}  "
                     f"{'pass' if ok else 'FAIL'} {worst} {'; '.join(wrong)}")
        print(line)
    return good


# --- an h5lens file -----------------------------------------------------------------------

class H5lensFile:
    """/cache and /results of an h5lens output, prompt by prompt."""

    def __init__(self, path: str, lens: str) -> None:
        self.file = h5py.File(path, "r")
        self.lens = lens

    def check_tokens(self, i: int, prompt: Prompt) -> None:
        n = int(self.file["prompts/length"][i])
        tokens = self.file["prompts/tokens"][i]
        if tokens[:n].tolist() != prompt.tokens or (tokens[n:] != -1).any():
            raise ValueError(f"prompt {i}: h5lens has other tokens than the tokenizer gives")

    def hook(self, name: str, i: int, n: int, err: Error) -> np.ndarray | None:
        """The real positions of prompt i; what lies past its end has to be NaN, or -1."""
        dataset = self.file.get(f"cache/{name}")
        if dataset is None:
            err.wrong.add("missing")
            return None
        a = dataset[i]
        if name.endswith(("hook_attn_scores", "hook_pattern")):  # [head, query, key]
            inside, padding = a[:, :n, :n], (a[:, n:], a[:, :n, n:])
        else:
            inside, padding = a[:n], (a[n:],)
        if not all((np.isnan(p) if a.dtype.kind == "f" else p == -1).all() for p in padding):
            err.wrong.add("no NaN (integers: -1) past the end")
        return inside

    def tables(self, i: int, n: int) -> dict[str, np.ndarray]:
        """token_logprobs without its NaN from n - 1 on, as the truth has it."""
        found = {k: v[i] for k, v in self.file["results"].items()
                 if isinstance(v, h5py.Dataset) and (v.ndim > 1 or k == "loss")}
        if "token_logprobs" in found:
            a = found["token_logprobs"]
            found["token_logprobs"] = a[:n - 1] if np.isnan(a[n - 1:]).all() else a
        for name in ("rank_per_layer", "lens_logit"):
            if name in found:
                found[f"{self.lens}/{name}"] = found.pop(name)
        return found


def run_h5lens(args: argparse.Namespace, out: str) -> None:
    command = [args.h5lens, "run", "--model", args.model_dir, "--data", args.data, "-o", out]
    for setting in (*H5LENS_SETTINGS, f"lens={args.lens}"):
        command += ["--set", setting]
    if args.rows is not None:
        command += ["--limit", str(args.rows)]
    if args.raw:
        command += ["--raw-weights"]
    if args.refactor:
        command += ["--set", f"weights.{REFACTOR}=true"]
    status = subprocess.run(command + args.h5lens_arg).returncode
    if status != 0:
        sys.exit(f"{args.h5lens}: exit code {status}")


# --- the comparison -----------------------------------------------------------------------

class TableErrors:
    """Tables against the truth's: numbers by error, ranks and tokens by mismatches."""

    def __init__(self) -> None:
        self.errors: Errors = {}
        self.mismatches: dict[str, tuple[int, int]] = {}  # how many, of how many

    def add(self, tables: dict[str, np.ndarray], ref: dict[str, np.ndarray]) -> None:
        for name in ref.keys() & tables.keys():
            value, want = np.atleast_1d(tables[name]), np.atleast_1d(ref[name])
            if name in TOKEN_TABLES:
                self.errors.setdefault(name, Error()).add(value, want)
            elif want.dtype.kind == "i":
                k = min(value.shape[-1], want.shape[-1])
                if value.shape[:-1] != want.shape[:-1]:
                    self.errors.setdefault(name, Error()).add(value, want)
                    continue
                different = value[..., :k] != want[..., :k]
                bad, n = self.mismatches.get(name, (0, 0))
                self.mismatches[name] = (bad + int(different.sum()), n + different.size)
            else:
                k = min(value.shape[-1], want.shape[-1])
                self.errors.setdefault(name, Error()).add(value[..., :k], want[..., :k])

    def complete(self, other: "TableErrors") -> bool:
        """Has every table of one lens, each of the right shape and finite.

        A file from before there were TOKEN_TABLES may lack them.
        """
        names = {n.split("/")[-1] for n in (*self.errors, *self.mismatches)}
        wanted = {n.split("/")[-1] for n in (*other.errors, *other.mismatches)}
        absent = [t for t in TOKEN_TABLES if t not in names]
        if absent:
            print(f"not in the file: {', '.join(absent)}")
            wanted -= set(absent)
        if wanted - names:
            print(f"missing tables: {', '.join(sorted(wanted - names))}")
        return wanted <= names and not any(e.wrong for e in self.errors.values())

    def show(self, title: str) -> None:
        print(f"{title}, tables:")
        for name, e in sorted(self.errors.items()):
            rms, largest = e.relative()
            print(f"  {name:36s} rms {rms:.2e} max {largest:.2e} {' '.join(sorted(e.wrong))}")
        for name, (bad, n) in sorted(self.mismatches.items()):
            print(f"  {name:36s} {bad} of {n} differ from the truth")


def open_reference(model_dir: str) -> Callable[[dict[str, bool]], torch.nn.Module]:
    """TransformerLens's float32 model, of the processing's flags."""
    if is_own(model_dir):
        return tl_loader(model_dir, torch.float32)
    hf = load_hf(model_dir, torch.float32)
    if tl_cannot(hf.config):
        sys.exit(f"{model_dir}: TransformerLens can't hold it: {tl_cannot(hf.config)}")
    for note in tl_notes(hf.config):
        print(f"note: {note}")
    return tl_loader(model_dir, torch.float32)


@dataclass
class Variant:
    """What is recorded under one name; None: all prompts, all hooks."""

    name: str
    flags: dict[str, bool]
    stored: dict[int, set[str]] | None = None  # prompt -> hooks


def variants_of(model_dir: str) -> list[Variant]:
    path = os.path.join(model_dir, "truth.h5")
    if not os.path.exists(path):
        return [Variant(name, {f: on for f in truth.PROCESSING})
                for name, on in (("processed", True), ("raw", False))]
    out = []
    with h5py.File(path, "r") as f:
        for name, group in f.items():
            if "fold_ln" in group.attrs:
                flags = {k: bool(group.attrs.get(k, 0)) for k in (*truth.PROCESSING, REFACTOR)}
                out.append(Variant(name, flags, {int(i): set(datasets(group[i]))
                                                 for i in group if i.isdigit()}))
    return out


def datasets(group: h5py.Group, path: str = "") -> Iterator[str]:
    """Every name, also a second one of the same object, which h5py's visit leaves out."""
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            yield from datasets(item, f"{path}{name}/")
        else:
            yield path + name


def round_up(x: float) -> str:
    """Seven digits, no less than x: a limit that x itself keeps."""
    seven = decimal.Context(prec=7, rounding=decimal.ROUND_UP).create_decimal(x)
    return f"{float(seven):.6e}"


def record(args: argparse.Namespace) -> None:
    """TransformerLens's errors, pooled by kind, of each variant."""
    prompts = read_prompts(args.model_dir, args.data, args.rows)
    cfg, weights = truth_weights.read_model(args.model_dir)
    load = open_reference(args.model_dir)
    lines = []
    for v in variants_of(args.model_dir):
        exact = truth_weights.process(cfg, weights, **v.flags)
        if is_own(args.model_dir) and own_cannot(args.model_dir, v.flags):
            continue
        tl, errors = load(v.flags), Errors()
        for i, prompt in enumerate(prompts):
            if v.stored is not None and i not in v.stored:
                continue
            values, _ = run_tl(tl, prompt.tokens)
            for name, want in truth.run(exact, prompt.tokens).items():
                if v.stored is None or name in v.stored[i]:
                    errors.setdefault(name, Error()).add(values[name], want)
        wrong = sorted({f"{h}: {w}" for h, e in errors.items() for w in e.wrong})
        if wrong:
            sys.exit(f"{args.model_dir}: TransformerLens: {'; '.join(wrong)}")
        for kind, hooks in by_kind(errors).items():
            rms, largest = pooled(errors, hooks)
            lines.append(f"{v.name},{kind},{round_up(rms)},{round_up(largest)}\n")
    with open(args.record, "w", encoding="utf-8", newline="") as f:
        f.writelines(["variant,hook,tl_rms,tl_max\n", *lines])
    print(f"{args.record}: {len(lines)} lines")


def compare(args: argparse.Namespace) -> bool:
    flags = {f: not args.raw for f in truth.PROCESSING} | {REFACTOR: args.refactor}
    prompts = read_prompts(args.model_dir, args.data, args.rows)
    started = time.monotonic()
    exact = truth.load(args.model_dir, **flags)
    tl = open_reference(args.model_dir)(flags)
    print(f"{len(prompts)} prompts, {sum(len(p.tokens) for p in prompts)} tokens; "
          f"models loaded in {time.monotonic() - started:.1f} s")
    with tempfile.TemporaryDirectory() as tmp:
        h5 = args.h5
        if args.h5lens:
            h5 = os.path.join(tmp, "out.h5")
            run_h5lens(args, h5)
        ours_file = H5lensFile(h5, args.lens) if h5 else None
        tl_err, our_err = Errors(), Errors()
        tl_tab, our_tab = TableErrors(), TableErrors()
        seconds = {"truth": 0.0, "TransformerLens": 0.0}
        for i, prompt in enumerate(prompts):
            t0 = time.monotonic()
            ref = truth.run(exact, prompt.tokens)
            ref_tables = {**truth.tables(exact, ref, prompt.answers),
                          **truth.token_tables(ref, prompt.tokens)}
            t1 = time.monotonic()
            values, cache = run_tl(tl, prompt.tokens)
            seconds["truth"] += t1 - t0
            seconds["TransformerLens"] += time.monotonic() - t1
            tl_tab.add(tl_tables(tl, values["logits"], cache, prompt.tokens, prompt.answers),
                       ref_tables)
            if ours_file:
                ours_file.check_tokens(i, prompt)
                our_tab.add(ours_file.tables(i, len(prompt.tokens)), ref_tables)
            for name, want in ref.items():
                tl_err.setdefault(name, Error()).add(values[name], want)
                if ours_file:
                    err = our_err.setdefault(name, Error())
                    got = ours_file.hook(name, i, len(prompt.tokens), err)
                    if got is not None:
                        err.add(got, want)
        print(", ".join(f"{k} {v:.1f} s" for k, v in seconds.items()))
        good = report(tl_err, our_err if ours_file else None)
        tl_tab.show("TransformerLens")
        if ours_file:
            our_tab.show("h5lens")
            good = good and our_tab.complete(tl_tab)
    return good


# --- random models ------------------------------------------------------------------------

def random_prompts(tok: Tokenizer, seed: int, n: int, longest: int) -> Iterator[list[str]]:
    """Random words that are one token each, between 1 and `longest` of them."""
    rng = np.random.RandomState(seed)
    words = sorted(t for t in tok.get_vocab() if re.fullmatch("\u0120[a-z]{2,}", t))
    words = [w.replace("\u0120", " ") for w in words]

    def pick(count: int) -> list[str]:
        return [words[i] for i in rng.randint(0, len(words), count)]

    for _ in range(n):
        yield ["".join(pick(rng.randint(1, longest + 1))), *pick(2)]


def make_random(args: argparse.Namespace) -> None:
    name, out = args.make_random
    write_random(name, out, args.tokenizer, args.seed, args.bos)
    tok = Tokenizer.from_file(os.path.join(out, "tokenizer.json"))
    with open(os.path.join(out, "prompts.csv"), "w", encoding="utf-8", newline="") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(("prompt", "correct", "incorrect"))
        rows.writerows(random_prompts(tok, args.seed, args.prompts, args.longest))
    print(f"{out}: {name}, seed {args.seed}, {args.prompts} prompts")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model_dir", nargs="?")
    p.add_argument("--data", help="CSV with columns prompt, correct, incorrect")
    p.add_argument("--h5lens", metavar="BIN", help="runs this h5lens")
    p.add_argument("--h5lens-arg", action="append", default=[], help="one more argument to it")
    p.add_argument("--h5", help="reads this h5lens output instead")
    p.add_argument("--rows", type=int, help="only the first so many")
    p.add_argument("--lens", choices=truth.LENS_MODES, default="recompute",
                   help="which one h5lens uses")
    p.add_argument("--raw", action="store_true", help="no weight processing")
    p.add_argument("--refactor", action="store_true", help=REFACTOR)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--record", metavar="FILE.csv")
    p.add_argument("--check", nargs="+", metavar="DIR")
    p.add_argument("--make-random", nargs=2, metavar=("NAME", "DIR"),
                   help=f"NAME: {', '.join(SHAPES)}")
    p.add_argument("--tokenizer", help="tokenizer.json, or .gz, for --make-random")
    p.add_argument("--bos", default="<|endoftext|>", help="its name, for --make-random")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--prompts", type=int, default=8)
    p.add_argument("--longest", type=int, default=30, help="words")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.check:
        sys.exit(0 if check(args.check) else 1)
    if args.make_random:
        if not args.tokenizer or args.make_random[0] not in SHAPES:
            p.error(f"--make-random: one of {', '.join(SHAPES)}, and --tokenizer")
        make_random(args)
        return
    if not args.model_dir:
        p.error("MODEL_DIR is missing")
    args.data = args.data or os.path.join(args.model_dir, "prompts.csv")
    if args.record:
        record(args)
        return
    sys.exit(0 if compare(args) else 1)


if __name__ == "__main__":
    main()
