#!/usr/bin/env python3
"""Makes tests/golden/data: tiny random GPT-2 models and their float64 truth.

    make_golden.py [--out tests/golden/data] [NAME ...]     writes
    make_golden.py --check                                  compares with what is there

Each directory is a Hugging Face model (config.json, tokenizer.json, tokenizer_config.json,
safetensors) with prompts.csv (prompt, correct, incorrect, note) and truth.h5:

    /tokens/<i>                      int32 [P], the ids of prompt i, BOS in front
    /length, /read_pos               int32 [prompt]; read_pos is the last token
    /answers                         int32 [prompt, answer]: correct, incorrect
    /<variant>                       attributes fold_ln, center_writing_weights,
                                     center_unembed, fold_value_biases: 0 or 1
    /<variant>/<i>/<hook name>       float64, no batch dimension; and "logits" [P, V]
    /<variant>/tables/logit_diff     [prompt, 1]
                     /answer_logit, answer_prob, answer_rank     [prompt, 2]
                     /top_tokens, top_logits, top_probs          [prompt, 10]
                     /<lens mode>/rank_per_layer, lens_logit     [prompt, lens_layer, 2]

Variants: processed (all four flags on), raw (none), <flag> (that one alone on), no_<flag>
(that one alone off). Lens modes: recompute, cached_scale_no_bias (scripts/truth.py has the
formulas). Not every variant holds every prompt's hooks; a group that exists has what it has.
Ranks, tokens and lengths are integers, everything else is float64 rounded to 33 significant
bits (1e-10: far below float32's 6e-8), which makes the files a third smaller and keeps them
identical from machine to machine. Ranks and top tokens are safe from rounding: the script
refuses a model in which two logits that decide one lie within 2e-5 of each other.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field

import h5py
import numpy as np
from tokenizers import Tokenizer

import truth

KEPT_BITS = 33
MIN_GAP = 2e-5
N_CTX = 48
BOS = "<|endoftext|>"
# Each word becomes one token by a chain of merges from the left.
WORDS = (" the", " to", " Mary", " John", " cat", " and", " gave", " red", " blue", " dog",
         "er", "in", "He")
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
ALL_HOOKS = ("",)  # a hook is stored when its name ends with one of these
FEW_HOOKS = ("hook_resid_post", "hook_pattern", "hook_attn_out", "hook_mlp_out",
             "ln_final.hook_normalized", "logits")


def flags_of(variant: str) -> dict[str, bool]:
    if variant in ("processed", "raw"):
        return {f: variant == "processed" for f in truth.PROCESSING}
    if variant.startswith("no_"):
        return {f: f != variant[3:] for f in truth.PROCESSING}
    return {f: f == variant for f in truth.PROCESSING}


VARIANTS = ("processed", "raw", *truth.PROCESSING, *(f"no_{f}" for f in truth.PROCESSING))


@dataclass(frozen=True)
class Spec:
    """One model: its config, how its file is written, and what of its truth is stored."""

    seed: int
    config: dict
    dtype: str = "F32"
    prefix: str = ""
    buffers: bool = False        # the attn.bias buffers of old checkpoints
    shards: int = 1
    merges_as_pairs: bool = True  # tokenizer.json of tokenizers >= 0.20; else "a b"
    # variant -> (hooks, prompts whose hooks are stored)
    store: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = field(default_factory=dict)


def gpt2_config(n_layer: int, n_embd: int, n_head: int, **more: object) -> dict:
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": n_layer,
            "n_embd": n_embd, "n_head": n_head, "n_positions": N_CTX, "n_ctx": N_CTX,
            "vocab_size": 300, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
            "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1, **more}


MOST, SHORT = (0, 1, 2, 3, 5), (0, 1, 3)
ONLY_ON = {v: (FEW_HOOKS, (3,)) for v in VARIANTS[2:6]}
ONLY_OFF = {v: (FEW_HOOKS, (3,)) for v in VARIANTS[6:]}
MODELS = {
    "gpt2_gelu_new": Spec(
        102, gpt2_config(2, 32, 4), merges_as_pairs=False,
        store={"processed": (ALL_HOOKS, MOST), "raw": (ALL_HOOKS, SHORT),
               **ONLY_ON, **ONLY_OFF}),
    "gpt2_gelu": Spec(
        204, gpt2_config(3, 24, 3, activation_function="gelu", tie_word_embeddings=False,
                         scale_attn_by_inverse_layer_idx=True),
        prefix="transformer.",
        store={"processed": (ALL_HOOKS, SHORT), "raw": (ALL_HOOKS, SHORT), **ONLY_ON}),
    "gpt2_relu": Spec(
        303, gpt2_config(2, 36, 3, activation_function="relu", n_inner=50,
                         layer_norm_epsilon=1e-3),
        buffers=True,
        store={"processed": (ALL_HOOKS, SHORT), "raw": (ALL_HOOKS, SHORT), **ONLY_ON}),
    "gpt2_bf16": Spec(404, gpt2_config(2, 32, 4), dtype="BF16",
                      store={"processed": (FEW_HOOKS, SHORT)}),
    "gpt2_f16": Spec(505, gpt2_config(2, 32, 2), dtype="F16", prefix="transformer.",
                     store={"processed": (FEW_HOOKS, SHORT)}),
    "gpt2_sharded": Spec(606, gpt2_config(2, 16, 2), prefix="transformer.", shards=2,
                         store={"processed": (FEW_HOOKS, SHORT)}),
    "gpt2_unscaled": Spec(707, gpt2_config(2, 16, 1, scale_attn_weights=False),
                          store={"processed": (FEW_HOOKS, SHORT)}),
}


# --- weights ------------------------------------------------------------------------------

def make_weights(cfg: dict, seed: int) -> dict[str, np.ndarray]:
    """Every tensor of a GPT-2 file without prefix, float32. RandomState's stream is frozen."""
    rng = np.random.RandomState(seed)
    D, V, n_ctx = cfg["n_embd"], cfg["vocab_size"], cfg["n_positions"]
    F = cfg.get("n_inner") or 4 * D
    embed_std = min(0.6, 4 / np.sqrt(D))  # logits with a standard deviation of about 4

    def normal(std: float, *shape: int, mean: float = 0.0) -> np.ndarray:
        return (mean + std * rng.standard_normal(shape)).astype(np.float32)

    w = {"wte.weight": normal(embed_std, V, D, mean=embed_std / 12),
         "wpe.weight": normal(embed_std * 2 / 3, n_ctx, D)}
    std = 1.2 / np.sqrt(D)
    for l in range(cfg["n_layer"]):
        for ln in ("ln_1", "ln_2"):
            w[f"h.{l}.{ln}.weight"] = normal(0.3, D, mean=1.1)
            w[f"h.{l}.{ln}.bias"] = normal(0.2, D, mean=0.05)
        w[f"h.{l}.attn.c_attn.weight"] = normal(std, D, 3 * D)
        w[f"h.{l}.attn.c_attn.bias"] = normal(0.3, 3 * D, mean=0.05)
        w[f"h.{l}.attn.c_proj.weight"] = normal(std, D, D)
        w[f"h.{l}.attn.c_proj.bias"] = normal(0.2, D, mean=0.05)
        w[f"h.{l}.mlp.c_fc.weight"] = normal(std, D, F)
        w[f"h.{l}.mlp.c_fc.bias"] = normal(0.3, F, mean=0.05)
        w[f"h.{l}.mlp.c_proj.weight"] = normal(1.2 / np.sqrt(F), F, D)
        w[f"h.{l}.mlp.c_proj.bias"] = normal(0.2, D, mean=0.05)
    w["ln_f.weight"], w["ln_f.bias"] = normal(0.3, D, mean=1.1), normal(0.2, D, mean=0.05)
    if not cfg.get("tie_word_embeddings", True):
        w["lm_head.weight"] = normal(0.5, V, D, mean=-0.03)
    return w


def narrow(a: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "F16":
        return a.astype("<f2")
    if dtype == "BF16":  # round to nearest, ties to even
        bits = a.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return a.astype("<f4")


def write_safetensors(path: str, tensors: dict[str, np.ndarray], dtype: str) -> int:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts, offset = [], 0
    for name, a in tensors.items():
        raw = narrow(a, dtype).tobytes()
        header[name] = {"dtype": dtype, "shape": list(a.shape),
                        "data_offsets": [offset, offset + len(raw)]}
        parts.append(raw)
        offset += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return offset


def write_model(out: str, spec: Spec) -> None:
    weights = make_weights(spec.config, spec.seed)
    if spec.buffers:
        for l in range(spec.config["n_layer"]):
            mask = np.tril(np.ones((1, 1, N_CTX, N_CTX), np.float32))
            weights[f"h.{l}.attn.bias"] = mask
            weights[f"h.{l}.attn.masked_bias"] = np.array(-1e4, np.float32)
    named = {n if n.startswith("lm_head") else spec.prefix + n: a for n, a in weights.items()}
    if spec.shards == 1:
        write_safetensors(os.path.join(out, "model.safetensors"), named, spec.dtype)
    else:
        names, weight_map, total = list(named), {}, 0
        for s in range(spec.shards):
            file = f"model-{s + 1:05d}-of-{spec.shards:05d}.safetensors"
            mine = names[s::spec.shards]  # interleaved, so that a block lies in both
            total += write_safetensors(os.path.join(out, file),
                                       {n: named[n] for n in mine}, spec.dtype)
            weight_map.update({n: file for n in mine})
        write_json(os.path.join(out, "model.safetensors.index.json"),
                   {"metadata": {"total_size": total}, "weight_map": weight_map})
    torch_dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[spec.dtype]
    write_json(os.path.join(out, "config.json"), {**spec.config, "torch_dtype": torch_dtype})


def write_json(path: str, value: object) -> None:
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


# --- tokenizer ----------------------------------------------------------------------------

def byte_symbols() -> dict[int, str]:
    """GPT-2's table: a printable character for each byte, in the order of its ids."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return {b: chr(b) for b in keep} | {b: chr(256 + i) for i, b in enumerate(rest)}


def tokenizer_json(merges_as_pairs: bool) -> dict:
    symbols = byte_symbols()
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        chars = [symbols[b] for b in word.encode()]
        for i in range(1, len(chars)):
            pair = ("".join(chars[:i]), chars[i])
            if pair not in merges:
                merges.append(pair)
    vocab = {s: i for i, s in enumerate([*symbols.values(), *("".join(m) for m in merges)])}
    vocab[BOS] = len(vocab)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": vocab[BOS], "content": BOS, "single_word": False,
                          "lstrip": False, "rstrip": False, "normalized": False,
                          "special": True}],
        "normalizer": None, "pre_tokenizer": byte_level,
        "post_processor": {**byte_level, "trim_offsets": False}, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                  "merges": [list(m) if merges_as_pairs else " ".join(m) for m in merges]},
    }


def write_tokenizer(out: str, spec: Spec) -> None:
    write_json(os.path.join(out, "tokenizer.json"), tokenizer_json(spec.merges_as_pairs))
    write_json(os.path.join(out, "tokenizer_config.json"),
               {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False,
                "bos_token": BOS, "eos_token": BOS, "unk_token": BOS,
                "model_max_length": N_CTX})


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
            group.attrs.update({k: np.int32(v) for k, v in flags_of(variant).items()})
            model = truth.load(out, **flags_of(variant))
            rows = []
            for i, t in enumerate(tokens):
                cache = truth.run(model, t)
                if i in stored:
                    put_hooks(group.create_group(str(i)), cache, hooks)
                rows.append(truth.tables(model, cache, answers[i]))
                for mode in truth.LENS_MODES:
                    lens = truth.lens_logits(model, cache, -1, mode)
                    smallest = min(smallest, check_gaps(lens, answers[i], 10))
            for table in rows[0]:
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
        x[k].shape == y[k].shape and np.allclose(x[k], y[k], rtol=1e-9, atol=1e-9) for k in x)


def check(root: str, names: list[str]) -> bool:
    good = True
    for name in names:
        with tempfile.TemporaryDirectory() as tmp:
            make(tmp, MODELS[name])
            for file in sorted(os.listdir(tmp)):
                a, b = os.path.join(tmp, file), os.path.join(root, name, file)
                same = os.path.exists(b) and (same_file(a, b) or (
                    file == "truth.h5" and same_truth(a, b)))
                if not same:
                    print(f"{b}: differs")
                good = good and same
    return good


def main() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description="Makes the golden models and their truth.")
    p.add_argument("--out", default=os.path.join(here, "..", "tests", "golden", "data"))
    p.add_argument("--check", action="store_true")
    p.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    args = p.parse_args()
    names = args.names or list(MODELS)
    if args.check:
        sys.exit(0 if check(args.out, names) else 1)
    for name in names:
        print(f"{name}: {make(os.path.join(args.out, name), MODELS[name])}")


if __name__ == "__main__":
    main()
