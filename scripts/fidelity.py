#!/usr/bin/env python3
"""How close h5lens and TransformerLens 2.16 (float32) are to a float64 run of the model.

    fidelity.py MODEL_DIR --data CSV [--h5lens BIN | --h5 OUT.h5] [--rows N] [--raw]
        runs scripts/truth.py, TransformerLens and h5lens on the CSV's prompts and prints, for
        every hook point, RMS and largest error relative to the truth's RMS. The rule for
        h5lens: RMS no larger than TransformerLens's, the largest no more than 1.5 times.
        Without h5lens it prints TransformerLens's side. Exit code 1 when the rule is broken.

    fidelity.py --check DIR ...
        ties scripts/truth.py to Hugging Face (float64, raw weights) and to TransformerLens
        (names, shapes, values, in float64 and float32, all 16 combinations of the weight
        processing flags) on the models in DIRs (tests/golden/data/*).

    fidelity.py --make-random gpt2-small DIR --tokenizer tokenizer.json[.gz]
        makes a random model of GPT-2 small's shape with a prompts.csv.

Needs torch, transformers, transformer_lens and h5py.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import h5py
import numpy as np
import torch
from tokenizers import Tokenizer

import truth

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
MAX_FACTOR = 1.5
# float32 and float64 runs of the same formulas may differ from the truth by this many of
# their own rounding units; a wrong formula is off by millions of them in float64.
CHECK_EPS = 1000
H5LENS_SETTINGS = ('cache.hooks=["*","logits","*hook_result"]',
                   "data.answers=[correct,incorrect]",
                   "tables=all")


# --- the references -----------------------------------------------------------------------

def load_hf(model_dir: str, dtype: torch.dtype) -> torch.nn.Module:
    from transformers import GPT2LMHeadModel
    hf = GPT2LMHeadModel.from_pretrained(model_dir, torch_dtype=dtype,
                                         attn_implementation="eager")
    return hf.eval().requires_grad_(False)


def load_tl(hf: torch.nn.Module, flags: dict[str, bool], dtype: torch.dtype) -> torch.nn.Module:
    """A HookedTransformer as from_pretrained would build it, without the model hub."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    c = hf.config
    cfg = HookedTransformerConfig(
        n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, n_heads=c.n_head,
        d_head=c.n_embd // c.n_head, d_mlp=c.n_inner or 4 * c.n_embd, d_vocab=c.vocab_size,
        act_fn=c.activation_function, eps=c.layer_norm_epsilon,
        use_attn_scale=c.scale_attn_weights,
        scale_attn_by_inverse_layer_idx=c.scale_attn_by_inverse_layer_idx,
        normalization_type="LNPre" if flags["fold_ln"] else "LN",
        init_weights=False, device="cpu", dtype=dtype)
    model = HookedTransformer(cfg)
    model.load_and_process_state_dict(convert_gpt2_weights(hf, cfg), **flags)
    return model.eval().requires_grad_(False)


def run_tl(model: torch.nn.Module, tokens: list[int]) -> tuple[truth.Cache, object]:
    """All hooks without batch dimension, and TransformerLens's own ActivationCache.

    hook_result comes from a second run: with use_attn_result on, TransformerLens computes
    hook_attn_out along another, less exact way than it does by default.
    """
    ids = torch.tensor([tokens])
    model.set_use_attn_result(False)
    logits, cache = model.run_with_cache(ids)
    out = {k: v[0].numpy() for k, v in cache.items()}
    out["logits"] = logits[0].numpy()
    model.set_use_attn_result(True)
    _, results = model.run_with_cache(ids, names_filter=lambda n: n.endswith("hook_result"))
    model.set_use_attn_result(False)
    out.update({k: v[0].numpy() for k, v in results.items()})
    return out, cache


def tl_lens(model: torch.nn.Module, cache: object, mode: str) -> np.ndarray:
    """[lens_layer, V] at the last position, the way a notebook does it."""
    if mode == "recompute":
        stack = cache.accumulated_resid(layer=-1, pos_slice=-1)  # [lens_layer, 1, D]
        return model.unembed(model.ln_final(stack))[:, 0].numpy()
    stack = cache.accumulated_resid(layer=-1, apply_ln=True, pos_slice=-1)
    return (stack @ model.W_U)[:, 0].numpy()


def tl_tables(model: torch.nn.Module, logits: np.ndarray, cache: object,
              answers: list[int]) -> dict[str, np.ndarray]:
    last = logits[-1]
    probs = torch.softmax(torch.from_numpy(last), -1).numpy()
    top = np.argsort(-last, kind="stable")[:10]
    out = {"logit_diff": np.array([last[answers[0]] - last[a] for a in answers[1:]]),
           "answer_logit": last[answers], "answer_prob": probs[answers],
           "answer_rank": np.array([truth.rank(last, a) for a in answers]),
           "top_tokens": top, "top_logits": last[top], "top_probs": probs[top]}
    for mode in truth.LENS_MODES:
        lens = tl_lens(model, cache, mode)
        out[f"{mode}/lens_logit"] = lens[:, answers]
        out[f"{mode}/rank_per_layer"] = np.array([[truth.rank(r, a) for a in answers]
                                                  for r in lens])
    return out


# --- prompts ------------------------------------------------------------------------------

@dataclass
class Prompt:
    tokens: list[int]
    answers: list[int]


def read_prompts(model_dir: str, path: str, rows: int | None) -> list[Prompt]:
    tok = Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
    with open(os.path.join(model_dir, "tokenizer_config.json"), encoding="utf-8") as f:
        bos = tok.token_to_id(json.load(f)["bos_token"])

    def encode(text: str) -> list[int]:
        return tok.encode(text, add_special_tokens=False).ids

    with open(path, encoding="utf-8", newline="") as f:
        return [Prompt([bos, *encode(r["prompt"])],
                       [encode(r[c])[0] for c in ("correct", "incorrect")])
                for r in itertools.islice(csv.DictReader(f), rows)]


# --- errors -------------------------------------------------------------------------------

@dataclass
class Error:
    """Running sums of one hook of one layer; masked scores (-inf in the truth) are left out."""

    n: int = 0
    err2: float = 0.0
    ref2: float = 0.0
    largest: float = 0.0
    wrong: set[str] = field(default_factory=set)

    def add(self, value: np.ndarray, ref: np.ndarray) -> None:
        if value.shape != ref.shape:
            self.wrong.add(f"shape {value.shape}, not {ref.shape}")
            return
        finite = np.isfinite(ref)
        if not np.array_equal(value[~finite], ref[~finite].astype(value.dtype)):
            self.wrong.add("masked scores are not -inf")
        ref = ref[finite]
        diff = np.abs(value[finite].astype(np.float64) - ref)
        if not np.isfinite(diff).all():
            self.wrong.add("not finite")
            return
        self.n += diff.size
        self.err2 += float((diff * diff).sum())
        self.ref2 += float((ref * ref).sum())
        self.largest = max(self.largest, float(diff.max(initial=0.0)))

    def relative(self) -> tuple[float, float]:
        """RMS and largest error over the truth's RMS; against a zero truth, absolute."""
        rms_ref = (self.ref2 / self.n) ** 0.5 if self.ref2 > 0 else 1.0
        return (self.err2 / max(self.n, 1)) ** 0.5 / rms_ref, self.largest / rms_ref


Errors = dict[str, Error]  # by hook name


def kind_of(hook: str) -> str:
    return re.sub(r"^blocks\.\d+\.", "blocks.*.", hook)


def pooled(errors: Errors, hooks: list[str]) -> tuple[float, float]:
    """Over layers: the RMS of their relative RMS errors, the largest of their largest."""
    relative = [errors[h].relative() for h in hooks]
    return (float(np.sqrt(np.mean([r * r for r, _ in relative]))), max(m for _, m in relative))


def ratio(a: float, b: float) -> float:
    return a / b if b > 0 else (1.0 if a == 0 else float("inf"))


def report(tl: Errors, ours: Errors | None) -> bool:
    """The table; true when every hook keeps the rule."""
    kinds: dict[str, list[str]] = {}
    for hook in tl:
        kinds.setdefault(kind_of(hook), []).append(hook)
    print(f"{'hook':34s} {'TL rms':>9s} {'TL max':>9s} {'rms':>9s} {'max':>9s} "
          f"{'rms/TL':>7s} {'max/TL':>7s}  verdict, worst layer")
    good = True
    for kind, hooks in kinds.items():
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
        """The real positions of prompt i; what lies past its end has to be NaN."""
        dataset = self.file.get(f"cache/{name}")
        if dataset is None:
            err.wrong.add("missing")
            return None
        a = dataset[i]
        if name.endswith(("hook_attn_scores", "hook_pattern")):  # [head, query, key]
            inside, padding = a[:, :n, :n], (a[:, n:], a[:, :n, n:])
        else:
            inside, padding = a[:n], (a[n:],)
        if not all(np.isnan(p).all() for p in padding):
            err.wrong.add("no NaN past the end")
        return inside

    def tables(self, i: int) -> dict[str, np.ndarray]:
        found = {k: v[i] for k, v in self.file["results"].items()
                 if isinstance(v, h5py.Dataset) and v.ndim > 1}
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
    subprocess.run(command + args.h5lens_arg, check=True)


# --- the comparison -----------------------------------------------------------------------

class TableErrors:
    """Tables against the truth's: numbers by error, ranks and tokens by mismatches."""

    def __init__(self) -> None:
        self.errors: Errors = {}
        self.mismatches: dict[str, tuple[int, int]] = {}  # how many, of how many

    def add(self, tables: dict[str, np.ndarray], ref: dict[str, np.ndarray]) -> None:
        for name in ref.keys() & tables.keys():
            value, want = tables[name], ref[name]
            if want.dtype.kind == "i":
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
        """Has every table of one lens, each of the right shape and finite."""
        names = {n.split("/")[-1] for n in (*self.errors, *self.mismatches)}
        wanted = {n.split("/")[-1] for n in (*other.errors, *other.mismatches)}
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


def compare(args: argparse.Namespace) -> bool:
    flags = {f: not args.raw for f in truth.PROCESSING}
    prompts = read_prompts(args.model_dir, args.data, args.rows)
    started = time.monotonic()
    exact = truth.load(args.model_dir, **flags)
    tl = load_tl(load_hf(args.model_dir, torch.float32), flags, torch.float32)
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
            ref_tables = truth.tables(exact, ref, prompt.answers)
            t1 = time.monotonic()
            values, cache = run_tl(tl, prompt.tokens)
            seconds["truth"] += t1 - t0
            seconds["TransformerLens"] += time.monotonic() - t1
            tl_tab.add(tl_tables(tl, values["logits"], cache, prompt.answers), ref_tables)
            if ours_file:
                ours_file.check_tokens(i, prompt)
                our_tab.add(ours_file.tables(i), ref_tables)
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


# --- tying the truth to Hugging Face and TransformerLens ----------------------------------

def all_flags() -> Iterator[dict[str, bool]]:
    for values in itertools.product((False, True), repeat=len(truth.PROCESSING)):
        yield dict(zip(truth.PROCESSING, values))


class Worst:
    """Largest relative errors by title; and whether any was past its limit."""

    def __init__(self) -> None:
        self.largest: dict[str, tuple[float, str]] = {}
        self.limit: dict[str, float] = {}
        self.problems: list[str] = []

    def see(self, title: str, limit: float, where: str, value: np.ndarray,
            ref: np.ndarray) -> None:
        e = Error()
        e.add(value, ref)
        self.problems += [f"{where}: {w}" for w in e.wrong]
        largest = e.relative()[1]
        self.limit[title] = limit
        if largest >= self.largest.get(title, (-1.0, ""))[0]:
            self.largest[title] = (largest, where)
        if largest > limit:
            self.problems.append(f"{where}: {title}: {largest:.1e}")


def check_hf(model_dir: str, prompts: list[Prompt], worst: Worst) -> None:
    """Residual streams, patterns and logits of the raw model, all in float64."""
    hf = load_hf(model_dir, torch.float64)
    model = truth.load(model_dir, **{f: False for f in truth.PROCESSING})
    n, limit = model.cfg.n_layers, CHECK_EPS * torch.finfo(torch.float64).eps
    for prompt in prompts:
        ref = truth.run(model, prompt.tokens)
        out = hf(torch.tensor([prompt.tokens]), output_hidden_states=True,
                 output_attentions=True)
        pairs = [("logits", out.logits[0], ref["logits"]),
                 ("ln_final.hook_normalized", out.hidden_states[n][0],
                  ref["ln_final.hook_normalized"])]
        for l in range(n):
            pairs.append((f"blocks.{l}.hook_resid_pre", out.hidden_states[l][0],
                          ref[f"blocks.{l}.hook_resid_pre"]))
            pairs.append((f"blocks.{l}.attn.hook_pattern", out.attentions[l][0],
                          ref[f"blocks.{l}.attn.hook_pattern"]))
        for name, value, want in pairs:
            worst.see("Hugging Face float64", limit, f"{model_dir} {name}", value.numpy(), want)


def check_tl(model_dir: str, prompts: list[Prompt], worst: Worst) -> None:
    for dtype in (torch.float64, torch.float32):
        hf, title = load_hf(model_dir, dtype), f"TransformerLens {str(dtype)[6:]}"
        limit = CHECK_EPS * torch.finfo(dtype).eps
        for flags in all_flags():
            on = "+".join(f for f, v in flags.items() if v) or "raw"
            model, exact = load_tl(hf, flags, dtype), truth.load(model_dir, **flags)
            for prompt in prompts:
                ref = truth.run(exact, prompt.tokens)
                values, cache = run_tl(model, prompt.tokens)
                where = f"{model_dir} [{on}]"
                if ref.keys() != values.keys():
                    worst.problems.append(f"{where}: {sorted(ref.keys() ^ values.keys())}")
                for name in ref.keys() & values.keys():
                    worst.see(f"{title}, hooks", limit, f"{where} {name}", values[name],
                              ref[name])
                for mode in truth.LENS_MODES:
                    worst.see(f"{title}, lens {mode}", limit, where,
                              tl_lens(model, cache, mode),
                              truth.lens_logits(exact, ref, -1, mode))
            for name, param in model.state_dict().items():
                if name in exact.weights:
                    worst.see(f"{title}, weights", limit, f"{where} {name}", param.numpy(),
                              exact.weights[name])


def check(dirs: list[str]) -> bool:
    worst = Worst()
    for model_dir in dirs:
        prompts = read_prompts(model_dir, os.path.join(model_dir, "prompts.csv"), None)
        check_hf(model_dir, prompts, worst)
        check_tl(model_dir, prompts, worst)
        print(f"{model_dir}: {len(prompts)} prompts, 16 combinations of flags")
    print("largest error relative to the truth's RMS")
    for title, (largest, where) in worst.largest.items():
        print(f"  {title:46s} {largest:.1e} (limit {worst.limit[title]:.0e})  {where}")
    for problem in worst.problems[:50]:
        print(f"PROBLEM {problem}")
    return not worst.problems


# --- random models ------------------------------------------------------------------------

RANDOM_MODELS: dict[str, dict] = {
    "gpt2-small": {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024,
                   "n_ctx": 1024, "vocab_size": 50257, "layer_norm_epsilon": 1e-5},
}


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
    import make_golden
    name, out = args.make_random
    os.makedirs(out, exist_ok=True)
    opener: Callable = gzip.open if args.tokenizer.endswith(".gz") else open
    path = os.path.join(out, "tokenizer.json")
    with opener(args.tokenizer, "rb") as f, open(path, "wb") as g:
        shutil.copyfileobj(f, g)
    tok = Tokenizer.from_file(path)
    bos = "<|endoftext|>"
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
              "activation_function": "gelu_new", "bos_token_id": tok.token_to_id(bos),
              "eos_token_id": tok.token_to_id(bos), "torch_dtype": "float32",
              **RANDOM_MODELS[name]}
    make_golden.write_json(os.path.join(out, "config.json"), config)
    make_golden.write_json(os.path.join(out, "tokenizer_config.json"),
                           {"tokenizer_class": "GPT2Tokenizer", "bos_token": bos,
                            "eos_token": bos, "unk_token": bos, "add_prefix_space": False,
                            "model_max_length": config["n_positions"]})
    weights = make_golden.make_weights(config, args.seed)
    make_golden.write_safetensors(os.path.join(out, "model.safetensors"), weights, "F32")
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
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--check", nargs="+", metavar="DIR")
    p.add_argument("--make-random", nargs=2, metavar=("NAME", "DIR"))
    p.add_argument("--tokenizer", help="tokenizer.json, or .gz, for --make-random")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--prompts", type=int, default=8)
    p.add_argument("--longest", type=int, default=30, help="words")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.check:
        sys.exit(0 if check(args.check) else 1)
    if args.make_random:
        if not args.tokenizer:
            p.error("--make-random needs --tokenizer")
        make_random(args)
        return
    if not args.model_dir:
        p.error("MODEL_DIR is missing")
    args.data = args.data or os.path.join(args.model_dir, "prompts.csv")
    sys.exit(0 if compare(args) else 1)


if __name__ == "__main__":
    main()
