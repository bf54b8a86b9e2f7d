#!/usr/bin/env python3
"""Makes tests/golden/data: tiny random models of each family and their float64 truth.

    make_golden.py [--out tests/golden/data] [NAME ...]     writes
    make_golden.py --check                                  compares with what is there
    make_golden.py --check-hf                               loads them with transformers

golden_models.py lists the models. Each directory is a Hugging Face model (config.json,
tokenizer.json, tokenizer_config.json, safetensors or .bin) with prompts.csv (prompt, correct,
incorrect, note) and truth.h5:

    /tokens/<i>                      int32 [P], the ids of prompt i, BOS in front
    /length, /read_pos               int32 [prompt]; read_pos is the last token
    /answers                         int32 [prompt, answer]: correct, incorrect
    /<variant>                       attributes fold_ln, center_writing_weights,
                                     center_unembed, fold_value_biases: 0 or 1; and
                                     refactor_factored_attn_matrices where it is 1
    /<variant>/<i>/<hook name>       float64, no batch dimension; and "logits" [P, V]
    /<variant>/tables/logit_diff     [prompt, 1]
                     /answer_logit, answer_prob, answer_rank     [prompt, 2]
                     /top_tokens, top_logits, top_probs          [prompt, 10]
                     /token_logprobs      [prompt, pos], NaN from a prompt's last token on
                     /loss                [prompt]
                     /entropy             [prompt, pos], NaN past a prompt's end
                     /logit_attrs         [prompt, component, 2]
                     /head_attrs          [prompt, layer, head, 2]
                     /neuron_attrs        [prompt, layer, neuron, 2]; of LARGEST_IN only
                     /top_neuron_layer, top_neuron, top_neuron_attr  [prompt, 10]
                     /head_scores, head_scores_mean              [prompt, layer, head, score]
                     /pos_top_tokens, pos_top_logits, pos_top_probs  [prompt, pos, 10], -1 and
                                          NaN past a prompt's end; of LARGEST_IN only
                     /<lens mode>/rank_per_layer, lens_logit     [prompt, lens_layer, 2]
                                 /lens_logit_diff                [prompt, lens_layer, 1]

Variants: processed (all four flags on), raw (none), <flag> (that one alone on), no_<flag>
(that one alone off), refactor (all four and refactor_factored_attn_matrices). Lens modes:
recompute, cached_scale_no_bias (scripts/truth.py has the formulas). Not every variant holds
every prompt's hooks; a group that exists has what it has. fidelity.csv, where it is, comes
from scripts/fidelity.py --record.

Ranks, tokens and lengths are integers, everything else is float64 rounded to 33 significant
bits (1e-10: far below float32's 6e-8), which makes the files a third smaller and keeps them
identical from machine to machine. Ranks and top tokens are safe from rounding: the script
refuses a model in which two logits, or neurons, that decide one lie within 2e-5 of each other;
or the weights of two experts that decide where a token goes within 1e-4 (some hundred times
float32's error: otherwise it would go elsewhere in float32 than in float64).
At other positions than the last such a token is -2 in pos_top_tokens: it can be told by nobody.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile

import h5py
import numpy as np
from tokenizers import Tokenizer

import truth
from golden_models import (BOS, MODELS, Spec, flags_of, make_weights, write_json, write_model,
                           write_safetensors, write_tokenizer)

__all__ = ["MODELS", "make_weights", "write_json", "write_safetensors"]  # for fidelity.py
BUFFER_ENDS = (".attn.bias", ".attention.bias", ".masked_bias", ".rotary_emb.inv_freq")
KEPT_BITS = 33
MIN_GAP = 2e-5
MIN_ROUTER_GAP = 1e-4
N_TOP = 10
LARGEST = ("pos_top_tokens", "pos_top_logits", "pos_top_probs", "neuron_attrs")
LARGEST_IN = ("processed", "raw", "refactor")  # variants
UNDECIDED = -2
PROMPTS = (
    (" Mary", " John", " the", "one token"),
    ("John gave", " Mary", " John", "short"),
    ("He said, \"no\";\nna\u00efve \u4f60", " dog", "in", "quotes, a newline, multi-byte"),
    ("John and Mary gave the cat to", " John", " Mary", ""),
    (" the red cat and the blue dog and the cat gave John the red dog  and 12 to",
     " Mary", " cat", "middle"),
    ("The cat and the dog gave Mary and John the blue and the red cat's 7 tiny toys,"
     " and then we ",
     " the", " blue", "long, a space at the end"),
)


def write_prompts(path: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow(("prompt", "correct", "incorrect", "note"))
        rows.writerows(PROMPTS)


def encode_prompts(out: str) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens, BOS in front, and answers; an answer has to be one token."""
    tok = Tokenizer.from_file(os.path.join(out, "tokenizer.json"))
    bos = tok.token_to_id(BOS)
    tokens, answers = [], []
    with open(os.path.join(out, "prompts.csv"), encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f):
            tokens.append([bos, *tok.encode(row["prompt"], add_special_tokens=False).ids])
            ids = [tok.encode(row[c], add_special_tokens=False).ids
                   for c in ("correct", "incorrect")]
            if any(len(i) != 1 for i in ids):
                raise ValueError(f"an answer of {row} is not one token")
            answers.append([i[0] for i in ids])
    return tokens, answers


# --- truth --------------------------------------------------------------------------------

def trim(a: np.ndarray) -> np.ndarray:
    """Float64 rounded to KEPT_BITS significant bits, so that gzip finds zeros."""
    drop = 53 - KEPT_BITS
    bits = np.ascontiguousarray(a, np.float64).view(np.int64)
    rounded = ((bits + (1 << (drop - 1))) >> drop << drop).view(np.float64)
    return np.where(np.isfinite(a), rounded, a)


def check_gaps(lens: np.ndarray, answers: list[int], n_top: int) -> float:
    """Smallest distance between two logits that decide a rank or a top token."""
    gap = np.inf
    for a in answers:
        gap = min(gap, np.abs(np.delete(lens, a, axis=-1) - lens[:, a, None]).min())
    top = -np.sort(-lens[-1])[:n_top + 1]
    gap = min(gap, -np.diff(top).max())
    if gap < MIN_GAP:
        raise ValueError(f"two logits are {gap:.1e} apart: choose another seed")
    return float(gap)


def check_routers(model: truth.Model, cache: truth.Cache) -> None:
    """Are the weights that decide a token's experts, and their order, far enough apart?"""
    for l in range(model.cfg.n_layers if model.cfg.n_experts else 0):
        weights = -np.sort(-cache[f"blocks.{l}.mlp.hook_expert_weights"], axis=-1)
        gap = -np.diff(weights[:, :model.cfg.experts_per_token + 1]).max()
        if gap < MIN_ROUTER_GAP:
            raise ValueError(f"two experts' weights are {gap:.1e} apart: choose another seed")


def put(group: h5py.Group, name: str, a: np.ndarray) -> h5py.Dataset:
    if a.dtype.kind == "f":
        a = trim(a)
    if a.nbytes <= 512:  # a filter's overhead would be larger than the data
        return group.create_dataset(name, data=a)
    return group.create_dataset(name, data=a, chunks=a.shape, shuffle=True, compression="gzip",
                                compression_opts=9)


def put_hooks(group: h5py.Group, cache: truth.Cache, hooks: tuple[str, ...]) -> None:
    last_post = None
    for name, a in cache.items():
        if not name.endswith(hooks):
            continue
        if name.endswith("hook_resid_pre") and last_post is not None:
            group[name] = last_post  # the same numbers: a hard link
            continue
        dataset = put(group, name, a)
        if name.endswith("hook_resid_post"):
            last_post = dataset


def decided(tokens: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """pos_top_tokens [P, k] with UNDECIDED where the next logit above or below is too near."""
    ordered = -np.sort(-logits, axis=-1)[:, :tokens.shape[1] + 1]
    near = -np.diff(ordered) < MIN_GAP
    near[:, 1:] |= near[:, :-1].copy()
    return np.where(near, UNDECIDED, tokens).astype(np.int32)


def padded(a: np.ndarray, longest: int) -> np.ndarray:
    """[P, ...] -> [longest, ...] with what stands past a prompt's end."""
    widths = [(0, longest - len(a))] + [(0, 0)] * (a.ndim - 1)
    return np.pad(a, widths, constant_values=np.nan if a.dtype.kind == "f" else -1)


def all_tables(model: truth.Model, cache: truth.Cache, tokens: list[int], answers: list[int],
               longest: int) -> dict[str, np.ndarray]:
    out = {**truth.tables(model, cache, answers, k=N_TOP),
           **truth.attr_tables(model, cache, answers),
           **truth.score_tables(model, cache, tokens)}
    if "neuron_attrs" in out:
        out.update(truth.top_neurons(out["neuron_attrs"], N_TOP))
        following = np.abs(truth.top_neurons(out["neuron_attrs"], N_TOP + 1)["top_neuron_attr"])
        if -np.diff(following).max() < MIN_GAP:
            raise ValueError("two neurons add the same: choose another seed")
    by_token = {**truth.token_tables(cache, tokens), **truth.position_tables(cache, N_TOP)}
    by_token["pos_top_tokens"] = decided(by_token["pos_top_tokens"], cache["logits"])
    out.update({name: padded(a, longest) if a.ndim else a for name, a in by_token.items()})
    return out


def write_truth(out: str, spec: Spec) -> str:
    tokens, answers = encode_prompts(out)
    smallest = np.inf
    # v110: what Debian's HDF5 1.10 reads, with the smallest index for a one-chunk dataset.
    with h5py.File(os.path.join(out, "truth.h5"), "w", libver=("v110", "v110")) as f:
        for i, t in enumerate(tokens):
            f.create_dataset(f"tokens/{i}", data=np.array(t, np.int32))
        lengths = np.array([len(t) for t in tokens], np.int32)
        f["length"], f["read_pos"] = lengths, lengths - 1
        f["answers"] = np.array(answers, np.int32)
        for variant, (hooks, stored) in spec.store.items():
            group = f.create_group(variant)
            flags = flags_of(variant)
            group.attrs.update({k: np.int32(v) for k, v in flags.items()})
            model = truth.load(out, **flags)
            rows = []
            for i, t in enumerate(tokens):
                cache = truth.run(model, t)
                check_routers(model, cache)
                if i in stored:
                    put_hooks(group.create_group(str(i)), cache, hooks)
                rows.append(all_tables(model, cache, t, answers[i], max(lengths)))
                for mode in truth.LENS_MODES:
                    lens = truth.lens_logits(model, cache, -1, mode)
                    smallest = min(smallest, check_gaps(lens, answers[i], N_TOP))
            for table in rows[0]:
                if table in LARGEST and variant not in LARGEST_IN:
                    continue
                put(group, f"tables/{table}", np.stack([r[table] for r in rows]))
    size = os.path.getsize(os.path.join(out, "truth.h5"))
    return (f"lengths {lengths.tolist()}, smallest deciding gap {smallest:.1e}, "
            f"truth.h5 {size / 1024:.0f} KiB")


def make(out: str, spec: Spec) -> str:
    os.makedirs(out, exist_ok=True)
    write_model(out, spec)
    write_tokenizer(out, spec)
    write_prompts(os.path.join(out, "prompts.csv"))
    return write_truth(out, spec)


# --- comparing with what is there ---------------------------------------------------------

def same_file(a: str, b: str) -> bool:
    with open(a, "rb") as fa, open(b, "rb") as fb:
        return fa.read() == fb.read()


def same_truth(a: str, b: str) -> bool:
    """All datasets of both, to 1e-9: another BLAS may round the last bits otherwise."""
    def content(path: str) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        with h5py.File(path, "r") as f:
            f.visit(lambda n: found.update({n: f[n][()]})
                    if isinstance(f[n], h5py.Dataset) else None)
        return found
    x, y = content(a), content(b)
    return x.keys() == y.keys() and all(
        x[k].shape == y[k].shape
        and np.allclose(x[k], y[k], rtol=1e-9, atol=1e-9, equal_nan=True) for k in x)


def same_bin(a: str, b: str) -> bool:
    """Names, values, types and strides: torch may pack them otherwise another time."""
    import torch
    x, y = (torch.load(p, weights_only=True) for p in (a, b))
    return list(x) == list(y) and all(
        x[k].dtype == y[k].dtype and x[k].stride() == y[k].stride()
        and torch.equal(x[k], y[k]) for k in x)


def same(a: str, b: str) -> bool:
    if not os.path.exists(b):
        return False
    if same_file(a, b):
        return True
    return a.endswith(".h5") and same_truth(a, b) or a.endswith(".bin") and same_bin(a, b)


def check(root: str, names: list[str]) -> bool:
    good = True
    for name in names:
        with tempfile.TemporaryDirectory() as tmp:
            make(tmp, MODELS[name])
            for file in sorted(os.listdir(tmp)):
                b = os.path.join(root, name, file)
                if not same(os.path.join(tmp, file), b):
                    print(f"{b}: differs")
                    good = False
    return good


def check_hf(root: str, names: list[str]) -> bool:
    """Are they what transformers takes for a model of that family, all names and shapes?"""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM
    good = True
    names = [n for n in names if MODELS[n].config["model_type"] != "hooked_transformer"]
    for name in names:
        model, info = AutoModelForCausalLM.from_pretrained(
            os.path.join(root, name), dtype=torch.float32, output_loading_info=True)
        ignored = {k for k in info["unexpected_keys"]
                   if MODELS[name].buffers and k.endswith(BUFFER_ENDS)}
        wrong = {k: v for k, v in info.items() if set(v) - ignored}
        print(f"{name}: {type(model).__name__}, {model.num_parameters()} parameters, "
              f"{len(ignored)} buffers left out {wrong or ''}")
        good = good and not wrong
    return good


def main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description="Makes the golden models and their truth.")
    p.add_argument("--out", default=os.path.join(here, "..", "tests", "golden", "data"))
    p.add_argument("--check", action="store_true")
    p.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    p.add_argument("--check-hf", action="store_true")
    args = p.parse_args()
    names = args.names or list(MODELS)
    if args.check_hf:
        sys.exit(0 if check_hf(args.out, names) else 1)
    if args.check:
        sys.exit(0 if check(args.out, names) else 1)
    for name in names:
        print(f"{name}: {make(os.path.join(args.out, name), MODELS[name])}")


if __name__ == "__main__":
    main()
