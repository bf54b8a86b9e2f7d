"""Ties scripts/truth.py to Hugging Face and TransformerLens, for fidelity.py --check."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import numpy as np
import torch

import truth
import truth_weights
from fidelity_errors import Error, Prompt, read_prompts
from fidelity_own import check_config, is_own, own_cannot
from fidelity_refs import (load_hf, run_tl, tl_cannot, tl_lens, tl_loader, tl_notes, tl_tables,
                           widened)
from truth_weights import REFACTOR

# How far runs of the same formulas in float64 and float32 may be from the truth: some 10,000
# and 1,000 of their rounding units. A wrong formula is off by millions of them in float64.
CHECK_LIMIT = {torch.float64: 2e-12, torch.float32: 1e-4}


def all_flags(refactor: bool) -> Iterator[dict[str, bool]]:
    """Every combination of the four; refactored, with all four and with none."""
    for values in itertools.product((False, True), repeat=len(truth.PROCESSING)):
        flags = dict(zip(truth.PROCESSING, values))
        yield flags
        if refactor and len(set(values)) == 1:
            yield {**flags, REFACTOR: True}


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

    def join(self, other: "Worst") -> None:
        for title, (largest, where) in other.largest.items():
            if largest >= self.largest.get(title, (-1.0, ""))[0]:
                self.largest[title] = (largest, where)
        self.limit.update(other.limit)
        self.problems += other.problems

    def show(self) -> None:
        for title, (largest, where) in self.largest.items():
            print(f"  {title:46s} {largest:.1e} (limit {self.limit[title]:.0e})  {where}")


def check_hf(model_dir: str, prompts: list[Prompt], worst: Worst) -> None:
    """Residual streams, patterns, routers and logits of the raw model, all in float64."""
    hf = load_hf(model_dir, torch.float64)
    model = truth.load(model_dir, **{f: False for f in truth.PROCESSING})
    n, limit = model.cfg.n_layers, CHECK_LIMIT[torch.float64]
    for prompt in prompts:
        ref = truth.run(model, prompt.tokens)
        with widened(torch.float64):
            out = hf(torch.tensor([prompt.tokens]), output_hidden_states=True,
                     output_attentions=True,
                     **({"output_router_logits": True} if model.cfg.n_experts else {}))
        final = truth.layer_norm(model, "ln_final", ref[f"blocks.{n - 1}.hook_resid_post"])
        pairs = [("logits", out.logits[0], ref["logits"]),
                 ("ln_final's output", out.hidden_states[n][0], final)]
        for l in range(n):
            pairs.append((f"blocks.{l}.hook_resid_pre", out.hidden_states[l][0],
                          ref[f"blocks.{l}.hook_resid_pre"]))
            pairs.append((f"blocks.{l}.attn.hook_pattern", out.attentions[l][0],
                          ref[f"blocks.{l}.attn.hook_pattern"]))
            if model.cfg.n_experts:
                name = f"blocks.{l}.mlp.hook_expert_weights"
                pairs.append((name, torch.softmax(out.router_logits[l], -1), ref[name]))
        for name, value, want in pairs:
            worst.see("Hugging Face float64", limit, f"{model_dir} {name}", value.numpy(), want)


def check_refactored(model_dir: str, prompts: list[Prompt], worst: Worst) -> None:
    """The notebook's check: orthogonal columns, equal norms, the same behaviour."""
    flags = {f: True for f in truth.PROCESSING}
    plain, even = (truth.load(model_dir, **flags, **{REFACTOR: r}) for r in (False, True))
    limit = CHECK_LIMIT[torch.float64]
    for l in range(plain.cfg.n_layers):
        where, gram = f"{model_dir} blocks.{l}", []
        for x in "QK":
            W, b = (even.weights[f"blocks.{l}.attn.{n}_{x}"] for n in "Wb")
            full = np.concatenate([W, b[:, None]], axis=1)  # [H, D + 1, dh]
            gram.append(full.transpose(0, 2, 1) @ full)
        norms = [np.diagonal(g, axis1=1, axis2=2) for g in gram]
        diagonal = np.eye(plain.cfg.d_head) * norms[0][:, None]
        worst.see("refactored: W_Q's columns orthogonal", limit, where, gram[0], diagonal)
        worst.see("refactored: norms of W_Q's and W_K's columns", limit, where, *norms)
    for prompt in prompts:
        a, b = (truth.run(m, prompt.tokens) for m in (even, plain))
        for name in ("logits", *(f"blocks.{l}.attn.hook_pattern"
                                 for l in range(plain.cfg.n_layers))):
            worst.see("refactored: same behaviour", limit, f"{model_dir} {name}", a[name],
                      b[name])


def check_tl(model_dir: str, prompts: list[Prompt], worst: Worst) -> None:
    """Hooks, lenses and weights. Singular vectors of a head are compared in float64 only:
    two singular values may be close, and then float32 can't tell the vectors apart."""
    cfg, weights = truth_weights.read_model(model_dir)
    for dtype in (torch.float64, torch.float32):
        load, title = tl_loader(model_dir, dtype), f"TransformerLens {str(dtype)[6:]}"
        limit = CHECK_LIMIT[dtype]
        for flags in all_flags(dtype == torch.float64 and not cfg.rotary_dim):
            on = "+".join(f for f, v in flags.items() if v) or "raw"
            title_hooks = f"{title}, {'refactored ' if REFACTOR in flags else ''}hooks"
            if is_own(model_dir) and own_cannot(model_dir, flags):
                continue
            model = load(flags)
            exact = truth_weights.process(cfg, weights, **flags)
            for prompt in prompts:
                ref = truth.run(exact, prompt.tokens)
                values, cache = run_tl(model, prompt.tokens)
                where = f"{model_dir} [{on}]"
                if ref.keys() != values.keys():
                    worst.problems.append(f"{where}: {sorted(ref.keys() ^ values.keys())}")
                for name in ref.keys() & values.keys():
                    worst.see(title_hooks, limit * (100 if REFACTOR in flags else 1),
                              f"{where} {name}", values[name], ref[name])
                for mode in truth.LENS_MODES:
                    worst.see(f"{title}, lens {mode}", limit, where,
                              tl_lens(model, cache, mode),
                              truth.lens_logits(exact, ref, -1, mode))
                own = tl_tables(model, values["logits"], cache, prompt.tokens, prompt.answers)
                for name, want in truth.token_tables(ref, prompt.tokens).items():
                    worst.see(f"{title}, token tables", limit, f"{where} {name}", own[name],
                              want)
            for name, param in model.state_dict().items():
                ours = name.replace("attn._", "attn.")  # grouped keys and values are _W_K, _W_V
                if ours in exact.weights and REFACTOR not in flags:
                    worst.see(f"{title}, weights", limit, f"{where} {name}", param.numpy(),
                              exact.weights[ours])


def check(dirs: list[str]) -> bool:
    worst = Worst()
    for model_dir in dirs:
        mine = Worst()
        prompts = read_prompts(model_dir, os.path.join(model_dir, "prompts.csv"), None)
        if is_own(model_dir):
            mine.problems += check_config(model_dir)
            check_tl(model_dir, prompts, mine)
            tell(model_dir, prompts, mine, [], worst)
            continue
        check_hf(model_dir, prompts, mine)
        config = load_hf(model_dir, torch.float32).config
        if tl_cannot(config):
            said = [f"NOT compared with TransformerLens: {tl_cannot(config)}"]
        else:
            said = tl_notes(config)
            check_tl(model_dir, prompts, mine)
        if config.model_type in ("gpt2", "gpt_neo"):
            check_refactored(model_dir, prompts, mine)
        tell(model_dir, prompts, mine, said, worst)
    print("largest error relative to the truth's RMS")
    worst.show()
    for problem in worst.problems[:50]:
        print(f"PROBLEM {problem}")
    return not worst.problems


def tell(model_dir: str, prompts: list[Prompt], mine: Worst, said: list[str],
         worst: Worst) -> None:
    figures = [f"{title.split(', ')[0]} {mine.largest[title][0]:.1e}"
               for title in ("Hugging Face float64", "TransformerLens float64, hooks",
                             "TransformerLens float32, hooks") if title in mine.largest]
    print(f"{model_dir}: {len(prompts)} prompts: {', '.join(figures)}", flush=True)
    for line in said:
        print(f"  {line}")
    worst.join(mine)
