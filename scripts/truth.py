#!/usr/bin/env python3
"""An independent float64 transformer: what h5lens's numbers are measured against.

Reads a Hugging Face model directory with its own safetensors reader, maps the tensors to
canonical weights with TransformerLens 2.16's names and shapes, processes them as
TransformerLens does, and runs one prompt at a time with every hook point of
HookedTransformer. NumPy only: it shares no code with torch, TransformerLens or h5lens.

    truth.py MODEL_DIR 50256,464,3290 [--raw] [--answers 11,12]    prints a prompt's tables

scripts/fidelity.py --check ties it to Hugging Face and TransformerLens.

A family is a class that gives a Config and canonical weights (see Gpt2); everything after
that is common. P positions, H heads, dh d_head, D d_model, F d_mlp, V d_vocab.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]
Cache = dict[str, Array]
PROCESSING = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
LENS_MODES = ("recompute", "cached_scale_no_bias")


# --- reading ------------------------------------------------------------------------------

SAFETENSORS_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8",
                      "I32": "<i4", "U8": "u1", "BOOL": "u1"}


def read_safetensors(path: str) -> dict[str, Callable[[], Array]]:
    """Name -> a function that reads that tensor and widens it, exactly, to float64."""
    with open(path, "rb") as f:
        n_header = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(n_header))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + n_header)

    def reader(entry: dict) -> Callable[[], Array]:
        def read() -> Array:
            start, end = entry["data_offsets"]
            a = np.asarray(data[start:end]).view(SAFETENSORS_DTYPES[entry["dtype"]])
            if entry["dtype"] == "BF16":  # the upper half of a float32
                a = (a.astype(np.uint32) << 16).view(np.float32)
            return a.astype(np.float64).reshape(entry["shape"])
        return read

    return {k: reader(e) for k, e in header.items() if k != "__metadata__"}


def read_tensors(model_dir: str) -> dict[str, Callable[[], Array]]:
    index = os.path.join(model_dir, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read_safetensors(os.path.join(model_dir, "model.safetensors"))
    with open(index, encoding="utf-8") as f:
        weight_map: dict[str, str] = json.load(f)["weight_map"]
    shards = {s: read_safetensors(os.path.join(model_dir, s)) for s in set(weight_map.values())}
    return {name: shards[shard][name] for name, shard in weight_map.items()}


# --- the canonical model ------------------------------------------------------------------

@dataclass(frozen=True)
class Config:
    """What the forward pass needs to know, whatever the family."""

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    eps: float
    act_fn: str
    attn_scale: tuple[float, ...]  # a layer: what scores are divided by
    tied: bool


@dataclass
class Model:
    cfg: Config
    weights: Weights
    ln_folded: bool


class Gpt2:
    """GPT2LMHeadModel: Conv1D weights are [in, out], q, k and v in one matrix."""

    model_type = "gpt2"

    @staticmethod
    def config(hf: dict) -> Config:
        n_layers, d_model, n_heads = hf["n_layer"], hf["n_embd"], hf["n_head"]
        scale = math.sqrt(d_model // n_heads) if hf.get("scale_attn_weights", True) else 1.0
        by_layer = hf.get("scale_attn_by_inverse_layer_idx", False)
        return Config(
            n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_head=d_model // n_heads,
            d_mlp=hf.get("n_inner") or 4 * d_model, d_vocab=hf["vocab_size"],
            n_ctx=hf["n_positions"], eps=hf.get("layer_norm_epsilon", 1e-5),
            act_fn=hf.get("activation_function", "gelu_new"),
            attn_scale=tuple(scale * (l + 1 if by_layer else 1) for l in range(n_layers)),
            tied=hf.get("tie_word_embeddings", True))

    @staticmethod
    def weights(cfg: Config, tensors: dict[str, Callable[[], Array]]) -> Weights:
        prefix = "transformer." if "transformer.wte.weight" in tensors else ""
        D, H, dh = cfg.d_model, cfg.n_heads, cfg.d_head

        def get(name: str) -> Array:
            return tensors[prefix + name]()

        w: Weights = {"embed.W_E": get("wte.weight"), "pos_embed.W_pos": get("wpe.weight")}
        for l in range(cfg.n_layers):
            src, dst = f"h.{l}.", f"blocks.{l}."
            for ours, theirs in (("ln1", "ln_1"), ("ln2", "ln_2")):
                w[f"{dst}{ours}.w"] = get(f"{src}{theirs}.weight")
                w[f"{dst}{ours}.b"] = get(f"{src}{theirs}.bias")
            qkv_w = get(f"{src}attn.c_attn.weight").reshape(D, 3, H, dh)
            qkv_b = get(f"{src}attn.c_attn.bias").reshape(3, H, dh)
            for i, x in enumerate("QKV"):
                w[f"{dst}attn.W_{x}"] = qkv_w[:, i].transpose(1, 0, 2).copy()  # [H, D, dh]
                w[f"{dst}attn.b_{x}"] = qkv_b[i].copy()                        # [H, dh]
            w[f"{dst}attn.W_O"] = get(f"{src}attn.c_proj.weight").reshape(H, dh, D)
            w[f"{dst}attn.b_O"] = get(f"{src}attn.c_proj.bias")
            w[f"{dst}mlp.W_in"] = get(f"{src}mlp.c_fc.weight")                 # [D, F]
            w[f"{dst}mlp.b_in"] = get(f"{src}mlp.c_fc.bias")
            w[f"{dst}mlp.W_out"] = get(f"{src}mlp.c_proj.weight")              # [F, D]
            w[f"{dst}mlp.b_out"] = get(f"{src}mlp.c_proj.bias")
        w["ln_final.w"], w["ln_final.b"] = get("ln_f.weight"), get("ln_f.bias")
        # As in Hugging Face, a tied model's own lm_head.weight is not looked at.
        unembed = w["embed.W_E"] if cfg.tied else tensors["lm_head.weight"]()
        w["unembed.W_U"] = unembed.T.copy()
        w["unembed.b_U"] = np.zeros(cfg.d_vocab)
        return w


FAMILIES = {f.model_type: f for f in (Gpt2,)}


def load(model_dir: str, **processing: bool) -> Model:
    """A directory's model, processed; flags not given are on, as in from_pretrained."""
    with open(os.path.join(model_dir, "config.json"), encoding="utf-8") as f:
        hf = json.load(f)
    family = FAMILIES[hf["model_type"]]
    cfg = family.config(hf)
    return process(cfg, family.weights(cfg, read_tensors(model_dir)), **processing)


# --- weight processing --------------------------------------------------------------------

def centred(w: Array, axis: int) -> Array:
    return w - w.mean(axis=axis, keepdims=True)


def fold_layer_norm(cfg: Config, w: Weights) -> None:
    """Gains and biases go into the weights that read them, which are then centred over D."""
    for l in range(cfg.n_layers):
        b = f"blocks.{l}."
        gain, bias = w.pop(b + "ln1.w"), w.pop(b + "ln1.b")
        for x in "QKV":
            W = w[f"{b}attn.W_{x}"]
            w[f"{b}attn.b_{x}"] = w[f"{b}attn.b_{x}"] + np.einsum("d,hde->he", bias, W)
            w[f"{b}attn.W_{x}"] = centred(W * gain[None, :, None], 1)
        gain, bias = w.pop(b + "ln2.w"), w.pop(b + "ln2.b")
        w[b + "mlp.b_in"] = w[b + "mlp.b_in"] + bias @ w[b + "mlp.W_in"]
        w[b + "mlp.W_in"] = centred(w[b + "mlp.W_in"] * gain[:, None], 0)
    gain, bias = w.pop("ln_final.w"), w.pop("ln_final.b")
    w["unembed.b_U"] = w["unembed.b_U"] + bias @ w["unembed.W_U"]
    w["unembed.W_U"] = centred(w["unembed.W_U"] * gain[:, None], 0)


def process(cfg: Config, weights: Weights, fold_ln: bool = True,
            center_writing_weights: bool = True, center_unembed: bool = True,
            fold_value_biases: bool = True) -> Model:
    """TransformerLens's load_and_process_state_dict, in its order, in float64."""
    w = dict(weights)
    blocks = [f"blocks.{l}." for l in range(cfg.n_layers)]
    if fold_ln:
        fold_layer_norm(cfg, w)
    if center_writing_weights:
        names = ["embed.W_E", "pos_embed.W_pos"]
        for b in blocks:
            names += [b + "attn.W_O", b + "attn.b_O", b + "mlp.W_out", b + "mlp.b_out"]
        for name in names:
            w[name] = centred(w[name], -1)
    if center_unembed:
        w["unembed.W_U"] = centred(w["unembed.W_U"], -1)
        w["unembed.b_U"] = centred(w["unembed.b_U"], -1)
    if fold_value_biases:
        for b in blocks:
            extra = np.einsum("he,hed->d", w[b + "attn.b_V"], w[b + "attn.W_O"])
            w[b + "attn.b_O"] = w[b + "attn.b_O"] + extra
            w[b + "attn.b_V"] = np.zeros_like(w[b + "attn.b_V"])
    return Model(cfg, w, fold_ln)


# --- the forward pass ---------------------------------------------------------------------

_erf = np.frompyfunc(math.erf, 1, 1)


def gelu_new(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)).astype(np.float64)),
    "relu": lambda x: np.maximum(x, 0.0),
}


def layer_norm(model: Model, name: str, x: Array, cache: Cache | None = None) -> Array:
    """x [..., D]. Folded: centre and scale only (LNPre); else hook_normalized is after w, b."""
    x = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + model.cfg.eps)
    x = x / scale
    if not model.ln_folded:
        x = x * model.weights[name + ".w"] + model.weights[name + ".b"]
    if cache is not None:
        cache[name + ".hook_scale"], cache[name + ".hook_normalized"] = scale, x
    return x


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(model: Model, layer: int, x: Array, cache: Cache, result: bool) -> Array:
    """x [P, D] -> [P, D]; the causal mask is -inf in hook_attn_scores."""
    w, name = model.weights, f"blocks.{layer}.attn."

    def project(letter: str) -> Array:  # [P, H, dh]
        y = np.tensordot(x, w[f"{name}W_{letter}"], axes=(1, 1)) + w[f"{name}b_{letter}"]
        cache[f"{name}hook_{letter.lower()}"] = y
        return y

    q, k, v = (project(letter).transpose(1, 0, 2) for letter in "QKV")  # [H, P, dh]
    scores = q @ k.transpose(0, 2, 1) / model.cfg.attn_scale[layer]
    P = len(x)
    scores = np.where(np.tril(np.ones((P, P), bool)), scores, -np.inf)
    pattern = softmax(scores)
    z = (pattern @ v).transpose(1, 0, 2)  # [P, H, dh]
    cache[name + "hook_attn_scores"], cache[name + "hook_pattern"] = scores, pattern
    cache[name + "hook_z"] = z
    if result:  # [P, H, D], without b_O
        per_head = z.transpose(1, 0, 2) @ w[name + "W_O"]
        cache[name + "hook_result"] = per_head.transpose(1, 0, 2)
    return np.tensordot(z, w[name + "W_O"], axes=2) + w[name + "b_O"]


def mlp(model: Model, layer: int, x: Array, cache: Cache) -> Array:
    w, name = model.weights, f"blocks.{layer}.mlp."
    pre = x @ w[name + "W_in"] + w[name + "b_in"]
    post = ACTIVATIONS[model.cfg.act_fn](pre)
    cache[name + "hook_pre"], cache[name + "hook_post"] = pre, post
    return post @ w[name + "W_out"] + w[name + "b_out"]


def run(model: Model, tokens: list[int], result: bool = True) -> Cache:
    """Every hook point of one prompt, without a batch dimension, and "logits" [P, V]."""
    w, cache = model.weights, Cache()
    if not 0 < len(tokens) <= model.cfg.n_ctx:
        raise ValueError(f"{len(tokens)} tokens, the context is {model.cfg.n_ctx}")
    cache["hook_embed"] = w["embed.W_E"][tokens]
    cache["hook_pos_embed"] = w["pos_embed.W_pos"][:len(tokens)]
    resid = cache["hook_embed"] + cache["hook_pos_embed"]
    for l in range(model.cfg.n_layers):
        b = f"blocks.{l}."
        cache[b + "hook_resid_pre"] = resid
        x = layer_norm(model, b + "ln1", resid, cache)
        cache[b + "hook_attn_out"] = attention(model, l, x, cache, result)
        resid = resid + cache[b + "hook_attn_out"]
        cache[b + "hook_resid_mid"] = resid
        x = layer_norm(model, b + "ln2", resid, cache)
        cache[b + "hook_mlp_out"] = mlp(model, l, x, cache)
        resid = resid + cache[b + "hook_mlp_out"]
        cache[b + "hook_resid_post"] = resid
    x = layer_norm(model, "ln_final", resid, cache)
    cache["logits"] = x @ w["unembed.W_U"] + w["unembed.b_U"]
    return cache


# --- tables -------------------------------------------------------------------------------

def lens_layers(cfg: Config) -> list[str]:
    return [f"{l}_pre" for l in range(cfg.n_layers)] + ["final_post"]


def lens_logits(model: Model, cache: Cache, pos: int, mode: str) -> Array:
    """[lens_layer, V] at one position.

    recompute: ln_final, with its own mean and scale at each layer and, when not folded, its
    w and b; then W_U and b_U. The last row is the model's own.
    cached_scale_no_bias: cache.accumulated_resid(apply_ln=True) @ W_U: centred, divided by the
    model's own ln_final.hook_scale at that position; no w or b even when not folded, no b_U.
    """
    layers = range(model.cfg.n_layers)
    stack = np.stack([cache[f"blocks.{l}.hook_resid_pre"][pos] for l in layers]
                     + [cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][pos]])
    W_U, b_U = model.weights["unembed.W_U"], model.weights["unembed.b_U"]
    if mode == "recompute":
        return layer_norm(model, "ln_final", stack) @ W_U + b_U
    if mode == "cached_scale_no_bias":
        return centred(stack, -1) / cache["ln_final.hook_scale"][pos] @ W_U
    raise ValueError(mode)


def rank(logits: Array, token: int) -> int:
    """How many tokens have a strictly larger logit."""
    return int((logits > logits[token]).sum())


def tables(model: Model, cache: Cache, answers: list[int], read_pos: int = -1,
           k: int = 10) -> dict[str, NDArray]:
    """One prompt's rows of every table; the lens ones as "<mode>/<table>"."""
    logits = cache["logits"][read_pos]
    probs = softmax(logits)
    top = np.argsort(-logits, kind="stable")[:k]  # of equal logits, the lower id first
    out: dict[str, NDArray] = {
        "logit_diff": np.array([logits[answers[0]] - logits[a] for a in answers[1:]]),
        "answer_logit": logits[answers],
        "answer_prob": probs[answers],
        "answer_rank": np.array([rank(logits, a) for a in answers], np.int64),
        "top_tokens": top.astype(np.int64),
        "top_logits": logits[top],
        "top_probs": probs[top],
    }
    for mode in LENS_MODES:
        lens = lens_logits(model, cache, read_pos, mode)
        ranks = [[rank(row, a) for a in answers] for row in lens]
        out[f"{mode}/rank_per_layer"] = np.array(ranks, np.int64).reshape(len(lens), -1)
        out[f"{mode}/lens_logit"] = lens[:, answers]
    return out


def main() -> None:
    p = argparse.ArgumentParser(description="Float64 tables of one prompt.")
    p.add_argument("model_dir")
    p.add_argument("tokens", help="comma-separated ids, BOS included")
    p.add_argument("--answers", default="0", help="comma-separated ids")
    p.add_argument("--raw", action="store_true", help="no weight processing")
    args = p.parse_args()
    model = load(args.model_dir, **{flag: not args.raw for flag in PROCESSING})
    cache = run(model, [int(t) for t in args.tokens.split(",")])
    rows = tables(model, cache, [int(t) for t in args.answers.split(",")])
    for name, value in rows.items():
        print(f"{name:40s} {np.array2string(value, precision=9, threshold=50)}")


if __name__ == "__main__":
    main()
