#!/usr/bin/env python3
"""An independent float64 transformer: what h5lens's numbers are measured against.

Loads a Hugging Face model directory (scripts/truth_weights.py), processes the weights as
TransformerLens 2.16 does, and runs one prompt at a time with every hook point of
HookedTransformer. NumPy only: it shares no code with torch, TransformerLens or h5lens.

    truth.py MODEL_DIR 50256,464,3290 [--raw] [--answers 11,12]    prints a prompt's tables

scripts/fidelity.py --check ties it to Hugging Face and TransformerLens.

P positions, H heads, Hkv key/value heads, dh d_head, D d_model, F d_mlp, V d_vocab.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from truth_weights import PROCESSING, REFACTOR, Array, Config, Model, centred, load

Cache = dict[str, Array]
LENS_MODES = ("recompute", "cached_scale_no_bias")


# --- the forward pass ---------------------------------------------------------------------

_erf = np.frompyfunc(math.erf, 1, 1)


def gelu_new(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def solu(x: Array) -> Array:
    return x * softmax(x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu_fast": lambda x: 0.5 * x * (1.0 + np.tanh(0.7978845608 * x * (1.0 + 0.044715 * x * x))),
    "solu": solu,
    "solu_ln": solu,
    "gelu": lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)).astype(np.float64)),
    "bloom_gelu": lambda x: 0.5 * x * (1.0 + np.tanh(0.79788456 * x * (1.0 + 0.044715 * x * x))),
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x * 0.5 * (1.0 + np.tanh(0.5 * x)),  # x times the sigmoid
}


def layer_norm(model: Model, name: str, x: Array, cache: Cache | None = None) -> Array:
    """x [..., D]; LayerNorm centres it first, RMSNorm does not.

    Folded, there is no w and no b (LNPre, RMSPre). Unfolded, hook_normalized is LayerNorm's
    output, after w and b, but RMSNorm's before w: so it is in TransformerLens 2.16.
    """
    kind = model.cfg.last_norm if name == "ln_final" else model.cfg.norm
    if kind == "none":
        return x
    rms = kind == "RMS"
    x = x if rms else centred(x, -1)
    scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + model.cfg.eps)
    x = normalized = x / scale
    if not model.ln_folded:
        x = x * model.weights[name + ".w"]
        if not rms:
            x = normalized = x + model.weights[name + ".b"]
    if cache is not None:
        cache[name + ".hook_scale"], cache[name + ".hook_normalized"] = scale, normalized
    return x


def inner_norm(model: Model, name: str, x: Array, cache: Cache) -> Array:
    """LayerNorm of what the activation gives, with weights if the other norms have some."""
    x = centred(x, -1)
    scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + model.cfg.eps)
    x = x / scale
    if name + ".w" in model.weights:
        x = x * model.weights[name + ".w"] + model.weights[name + ".b"]
    cache[name + ".hook_scale"], cache[name + ".hook_normalized"] = scale, x
    return x


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def head_norm(model: Model, name: str, x: Array, cache: Cache) -> Array:
    """RMSNorm of each head, or of all in one; hook_normalized comes before the weight."""
    axes = (-2, -1) if model.cfg.qk_norm == "all" else -1
    scale = np.sqrt((x * x).mean(axis=axes, keepdims=True) + model.cfg.eps)
    scale = np.repeat(scale, x.shape[-2] // scale.shape[-2], axis=-2)
    cache[name + ".hook_scale"], cache[name + ".hook_normalized"] = scale, x / scale
    return x / scale * model.weights[name + ".w"]


def norm_after(model: Model, name: str, x: Array, cache: Cache) -> Array:
    """RMSNorm of what is added to the stream; never folded."""
    if not model.cfg.norms_after:
        return x
    scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + model.cfg.eps)
    cache[name + ".hook_scale"], cache[name + ".hook_normalized"] = scale, x / scale
    return x / scale * model.weights[name + ".w"]


def capped(cap: float, x: Array) -> Array:
    return cap * np.tanh(x / cap) if cap else x


def rotated(cfg: Config, x: Array, layer: int) -> Array:
    """x [P, heads, dh]: of the first rotary_dim dimensions, i and i + rotary_dim / 2 turn.

    Or 2i and 2i + 1, as in GPT-J.
    """
    if layer in cfg.unrotated:
        return x
    inv_freq = cfg.local_inv_freq if cfg.local_inv_freq and cfg.windows[layer] else cfg.inv_freq
    half = len(inv_freq)
    angle = np.arange(len(x))[:, None, None] * np.array(inv_freq)  # [P, 1, half]
    a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
    cos, sin = cfg.rotary_factor * np.cos(angle), cfg.rotary_factor * np.sin(angle)
    if cfg.adjacent:
        a, b = x[..., 0:2 * half:2], x[..., 1:2 * half:2]
        turned = np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
        return np.concatenate([turned.reshape(*a.shape[:-1], 2 * half), rest], axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def alibi_slopes(cfg: Config) -> Array:
    """As transformers' build_alibi_tensor has them, or TransformerLens's own models."""
    n_heads = cfg.n_heads
    if cfg.even_slopes:
        return 2.0 ** (-8.0 * np.arange(1, n_heads + 1) / n_heads)
    n = 2 ** int(math.log2(n_heads))
    first = 2.0 ** (-8.0 * np.arange(1, n + 1) / n)
    rest = 2.0 ** (-4.0 * np.arange(1, 2 * (n_heads - n) + 1, 2) / n)
    return np.concatenate([first, rest])


def reachable(n: int, window: int | None) -> NDArray[np.bool_]:
    """[query, key]: the keys at or before a query, `window` of them at most."""
    back = np.arange(n)[:, None] - np.arange(n)
    return (back >= 0) & (back < (n if window is None else window))


def attention(model: Model, layer: int, x: Array, cache: Cache, result: bool) -> Array:
    """x [P, D] -> [P, D]; the causal mask is -inf in hook_attn_scores.

    q [P, H, dh]; k, v and rot_k [P, Hkv, dh]: head h reads key/value head h // (H / Hkv).
    """
    cfg, w, name = model.cfg, model.weights, f"blocks.{layer}.attn."
    for letter in "QKV":
        if cfg.shortformer and letter != "V":
            from_x = x + cache["hook_pos_embed"]
        else:
            from_x = x
        y = np.tensordot(from_x, w[f"{name}W_{letter}"], axes=(1, 1)) + w[f"{name}b_{letter}"]
        cache[f"{name}hook_{letter.lower()}"] = y
    q, k, v = (cache[f"{name}hook_{letter}"] for letter in "qkv")
    if cfg.qk_norm:
        q, k = (head_norm(model, f"{name}{x}_norm", a, cache) for x, a in (("q", q), ("k", k)))
    if cfg.rotary_dim:
        q, k = rotated(cfg, q, layer), rotated(cfg, k, layer)
        cache[name + "hook_rot_q"], cache[name + "hook_rot_k"] = q, k
    k, v = (np.repeat(a, cfg.n_heads // cfg.n_kv_heads, axis=1) for a in (k, v))
    q, k, v = (a.transpose(1, 0, 2) for a in (q, k, v))  # [H, P, dh]
    scores = q @ k.transpose(0, 2, 1) / cfg.attn_scale[layer]
    if cfg.alibi:
        back = np.arange(len(x)) - np.arange(len(x))[:, None]
        scores = scores + alibi_slopes(cfg)[:, None, None] * np.minimum(back, 0)
    scores = capped(cfg.score_cap, scores)
    scores = np.where(reachable(len(x), cfg.windows[layer]), scores, -np.inf)
    pattern = softmax(scores)
    z = (pattern @ v).transpose(1, 0, 2)  # [P, H, dh]
    cache[name + "hook_attn_scores"], cache[name + "hook_pattern"] = scores, pattern
    cache[name + "hook_z"] = z
    if result:  # [P, H, D], without b_O
        per_head = z.transpose(1, 0, 2) @ w[name + "W_O"]
        cache[name + "hook_result"] = per_head.transpose(1, 0, 2)
    return np.tensordot(z, w[name + "W_O"], axes=2) + w[name + "b_O"]


def mlp(model: Model, layer: int, x: Array, cache: Cache) -> Array:
    """Gated: hook_pre is the gate, hook_pre_linear what it multiplies.

    TransformerLens has no bias of the gate and adds b_in after the product; in models that it
    can hold both are zero, but in its own.
    """
    w, name = model.weights, f"blocks.{layer}.mlp."
    act = ACTIVATIONS[model.cfg.act_fn]
    linear, b_in = x @ w[name + "W_in"], w[name + "b_in"]
    if model.cfg.bias_last:
        pre = x @ w[name + "W_gate"]
        post = act(pre) * linear + b_in
        cache[name + "hook_pre_linear"] = linear
    elif model.cfg.gated:
        linear = linear + b_in
        pre = x @ w[name + "W_gate"] + w[name + "b_gate"]
        post = act(pre) * linear
        cache[name + "hook_pre_linear"] = linear
    else:
        pre = linear + b_in
        post = act(pre)
    if model.cfg.mlp_norm:
        cache[name + "hook_mid"] = post
        post = inner_norm(model, name + "ln", post, cache)
    cache[name + "hook_pre"], cache[name + "hook_post"] = pre, post
    return post @ w[name + "W_out"] + w[name + "b_out"]


def expert_mlp(model: Model, layer: int, x: Array, cache: Cache) -> Array:
    """The softmax over all experts, the largest k of each row, and what these add to it."""
    cfg, w, name = model.cfg, model.weights, f"blocks.{layer}.mlp."
    act, out = ACTIVATIONS[cfg.act_fn], np.zeros_like(x)
    weights = softmax(x @ w[name + "W_gate.weight"].T)
    # Of equal ones the lower first.
    chosen = np.argsort(-weights, axis=-1, kind="stable")[:, :cfg.experts_per_token]
    share = np.take_along_axis(weights, chosen, -1)
    if cfg.norm_expert_weights:
        share = share / share.sum(axis=-1, keepdims=True)
    cache[name + "hook_expert_weights"] = weights
    cache[name + "hook_expert_indices"] = chosen.astype(np.int32)
    for e in range(cfg.n_experts):
        W_gate, W_in, W_out = (w[f"{name}experts.{e}.W_{part}.weight"].T
                               for part in ("gate", "in", "out"))
        row, place = np.nonzero(chosen == e)
        post = act(x[row] @ W_gate) * (x[row] @ W_in)
        out[row] += (post @ W_out) * share[row, place][:, None]
    return out


def run(model: Model, tokens: list[int], result: bool = True) -> Cache:
    """Every hook point of one prompt, without a batch dimension, and "logits" [P, V]."""
    w, cache = model.weights, Cache()
    if not 0 < len(tokens) <= model.cfg.n_ctx:
        raise ValueError(f"{len(tokens)} tokens, the context is {model.cfg.n_ctx}")
    cache["hook_embed"] = w["embed.W_E"][tokens]
    resid = cache["hook_embed"]
    if "pos_embed.W_pos" in w:
        cache["hook_pos_embed"] = w["pos_embed.W_pos"][:len(tokens)]
        if not model.cfg.shortformer:
            resid = resid + cache["hook_pos_embed"]
    for l in range(model.cfg.n_layers):
        b = f"blocks.{l}."
        cache[b + "hook_resid_pre"] = resid
        x = layer_norm(model, b + "ln1", resid, cache) if model.cfg.norms_before else resid
        cache[b + "hook_attn_out"] = norm_after(
            model, b + "ln1_post", attention(model, l, x, cache, result), cache)
        mid = resid + cache[b + "hook_attn_out"]
        if model.cfg.attn_only:
            cache[b + "hook_resid_post"] = resid = mid
            continue
        if not model.cfg.parallel:
            cache[b + "hook_resid_mid"] = resid = mid
        x = layer_norm(model, b + "ln2", resid, cache) if model.cfg.norms_before else resid
        out = (expert_mlp if model.cfg.n_experts else mlp)(model, l, x, cache)
        cache[b + "hook_mlp_out"] = norm_after(model, b + "ln2_post", out, cache)
        resid = mid + cache[b + "hook_mlp_out"]
        cache[b + "hook_resid_post"] = resid
    x = layer_norm(model, "ln_final", resid, cache)
    cache["logits"] = capped(model.cfg.logit_cap, x @ w["unembed.W_U"] + w["unembed.b_U"])
    return cache


# --- tables -------------------------------------------------------------------------------

def lens_layers(cfg: Config) -> list[str]:
    return [f"{l}_pre" for l in range(cfg.n_layers)] + ["final_post"]


def lens_logits(model: Model, cache: Cache, pos: int, mode: str) -> Array:
    """[lens_layer, V] at one position.

    recompute: ln_final, with its own scale (LayerNorm: and mean) at each layer and, when not
    folded, its w and b; then W_U and b_U, and the soft cap if there is one. The last row is the model's own.
    cached_scale_no_bias: cache.accumulated_resid(apply_ln=True) @ W_U: centred (LayerNorm
    only), divided by the model's own ln_final.hook_scale at that position; no w or b even when
    not folded, no b_U.
    """
    layers = range(model.cfg.n_layers)
    stack = np.stack([cache[f"blocks.{l}.hook_resid_pre"][pos] for l in layers]
                     + [cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"][pos]])
    W_U, b_U = model.weights["unembed.W_U"], model.weights["unembed.b_U"]
    if mode == "recompute":
        return capped(model.cfg.logit_cap, layer_norm(model, "ln_final", stack) @ W_U + b_U)
    if mode == "cached_scale_no_bias":
        stack = centred(stack, -1) if model.cfg.norm == "LN" else stack  # as there, final_rms or not
        return stack / final_scale(cache)[pos] @ W_U
    raise ValueError(mode)


def final_scale(cache: Cache) -> Array:
    """[P, 1]; without a norm it is 1."""
    scale = cache.get("ln_final.hook_scale")
    return np.ones((len(cache["logits"]), 1)) if scale is None else scale


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
        out[f"{mode}/lens_logit_diff"] = lens[:, answers[:1]] - lens[:, answers[1:]]
    return out


def added_logits(model: Model, cache: Cache, parts: Array, answers: list[int],
                 read_pos: int | slice) -> Array:
    """parts [..., D] of the stream at read_pos -> [..., answer]: what each adds to the logits.

    Of a slice: parts [..., pos, D].

    As ln_final takes the whole stream: centred (LayerNorm), divided by the scale that the
    whole stream has, times the weight where it is not folded.
    """
    parts = centred(parts, -1) if model.cfg.last_norm == "LN" else parts
    parts = parts / final_scale(cache)[read_pos]
    if "ln_final.w" in model.weights:
        parts = parts * model.weights["ln_final.w"]
    return parts @ model.weights["unembed.W_U"][:, answers]


def part_of(model: Model, cache: Cache, norm: str, read_pos: int, x: Array) -> Array:
    """A head's or neuron's share of what is added: by the scale that the norm after it has."""
    if not model.cfg.norms_after:
        return x
    return x / cache[norm + ".hook_scale"][read_pos] * model.weights[norm + ".w"]


def component_names(model: Model) -> list[str]:
    """Of the hooks that the stream is the sum of."""
    return ["hook_embed", *(["hook_pos_embed"] if "pos_embed.W_pos" in model.weights
                             and not model.cfg.shortformer else []),
            *(f"blocks.{l}.hook_{part}_out" for l in range(model.cfg.n_layers)
              for part in (("attn",) if model.cfg.attn_only else ("attn", "mlp")))]


def attr_tables(model: Model, cache: Cache, answers: list[int],
                read_pos: int = -1) -> dict[str, Array]:
    """Direct logit attribution, of one prompt.

    logit_attrs [component, answer]: embed, pos_embed (where positions are learned), each
    layer's attn_out and mlp_out, then what is of no part of the stream: b_U, and the bias of
    an unfolded ln_final. Their sum is answer_logit.
    head_attrs [layer, head, answer]: of hook_result, so without b_O.
    neuron_attrs [layer, neuron, answer], of an MLP without experts: of the activation times its row of W_out.
    """
    w, layers = model.weights, range(model.cfg.n_layers)
    stream = np.stack([cache[name][read_pos] for name in component_names(model)])
    results = np.stack([part_of(model, cache, f"blocks.{l}.ln1_post", read_pos,
                                cache[f"blocks.{l}.attn.hook_result"][read_pos])
                        for l in layers])
    bias = w["unembed.b_U"][answers]
    if "ln_final.b" in w:
        bias = bias + w["ln_final.b"] @ w["unembed.W_U"][:, answers]
    attrs = added_logits(model, cache, stream, answers, read_pos)
    out = {"logit_attrs": np.concatenate([attrs, bias[None]]),
           "head_attrs": added_logits(model, cache, results, answers, read_pos)}
    if model.cfg.attn_only or model.cfg.n_experts:
        return out
    neurons = np.stack([part_of(model, cache, f"blocks.{l}.ln2_post", read_pos,
                                cache[f"blocks.{l}.mlp.hook_post"][read_pos][:, None]
                                * w[f"blocks.{l}.mlp.W_out"]) for l in layers])
    return {**out, "neuron_attrs": added_logits(model, cache, neurons, answers, read_pos)}


def attr_position_tables(model: Model, cache: Cache, answers: list[int]) -> dict[str, Array]:
    """logit_attrs [component, pos, answer] and head_attrs [layer, head, pos, answer].

    As attr_tables has them at one position, each position's stream by its own scale.
    """
    every = slice(None)
    at = [attr_tables(model, cache, answers, 0)["logit_attrs"][-1]] * len(cache["logits"])
    stream = np.stack([cache[name] for name in component_names(model)])
    results = np.stack([np.stack([part_of(model, cache, f"blocks.{l}.ln1_post", pos, result)
                                  for pos, result in
                                  enumerate(cache[f"blocks.{l}.attn.hook_result"])], axis=1)
                        for l in range(model.cfg.n_layers)])
    attrs = added_logits(model, cache, stream, answers, every)
    return {"logit_attrs": np.concatenate([attrs, np.stack(at)[None]]),
            "head_attrs": added_logits(model, cache, results, answers, every)}


def top_neurons(attrs: Array, k: int = 10) -> dict[str, NDArray]:
    """The largest of neuron_attrs by magnitude, the first answer minus the second, [k]."""
    diff = attrs[..., 0] - attrs[..., 1] if attrs.shape[-1] > 1 else attrs[..., 0]
    top = np.argsort(-np.abs(diff), axis=None, kind="stable")[:k]  # in layers' order
    return {"top_neuron_layer": top // diff.shape[1], "top_neuron": top % diff.shape[1],
            "top_neuron_attr": diff.ravel()[top]}


SCORES = ("previous_token", "current_token", "first_token", "duplicate_token", "induction")


def score_masks(tokens: list[int]) -> NDArray[np.bool_]:
    """[score, query, key]: the keys whose attention counts."""
    q, k = np.indices((len(tokens), len(tokens)))
    t = np.array(tokens)
    after_same = np.zeros((len(t), len(t)), bool)
    after_same[:, 1:] = t[:-1] == t[:, None]  # the token before the key is the query's
    return np.stack([k == q - 1, k == q, k == 0, t[k] == t[q], after_same]) \
        & np.stack([k <= q, k <= q, k <= q, k < q, k <= q])


def score_tables(model: Model, cache: Cache, tokens: list[int]) -> dict[str, Array]:
    """Both [layer, head, score]: the attention of a kind over all of a prompt's attention; and
    its mean over the queries that have a key of the kind, NaN where none has."""
    mask = score_masks(tokens)
    pattern = np.stack([cache[f"blocks.{l}.attn.hook_pattern"]
                        for l in range(model.cfg.n_layers)])
    on = np.einsum("lhqk,sqk->lhsq", pattern, mask)
    with np.errstate(invalid="ignore"):  # 0/0
        mean = on.sum(-1) / mask.any(axis=-1).sum(-1)
    return {"head_scores": on.sum(-1) / pattern.sum((-2, -1))[..., None],
            "head_scores_mean": mean}


def position_tables(cache: Cache, k: int = 10) -> dict[str, NDArray]:
    """What the model says at every position, of one prompt.

    pos_top_tokens, pos_top_logits, pos_top_probs [P, k]; entropy [P], in nats.
    """
    logits = cache["logits"]
    top = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    centre = logits - logits.max(axis=-1, keepdims=True)
    logprobs = centre - np.log(np.exp(centre).sum(axis=-1, keepdims=True))
    return {"pos_top_tokens": top.astype(np.int64),
            "pos_top_logits": np.take_along_axis(logits, top, -1),
            "pos_top_probs": np.take_along_axis(softmax(logits), top, -1),
            "entropy": -(np.exp(logprobs) * logprobs).sum(axis=-1)}


def token_tables(cache: Cache, tokens: list[int]) -> dict[str, Array]:
    """One prompt's own probability, in nats, whatever its answers and read_pos.

    token_logprobs [P-1]: log P(token t+1 | tokens 0..t); loss: minus their mean, NaN for a
    prompt of one token.
    """
    logits = cache["logits"][:-1]
    logits = logits - logits.max(axis=-1, keepdims=True, initial=-np.inf)
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    own = logprobs[np.arange(len(logits)), tokens[1:]]
    return {"token_logprobs": own, "loss": np.array(-own.mean() if len(own) else np.nan)}


def main() -> None:
    p = argparse.ArgumentParser(description="Float64 tables of one prompt.")
    p.add_argument("model_dir")
    p.add_argument("tokens", help="comma-separated ids, BOS included")
    p.add_argument("--answers", default="0", help="comma-separated ids")
    p.add_argument("--raw", action="store_true", help="no weight processing")
    p.add_argument("--refactor", action="store_true", help=REFACTOR)
    args = p.parse_args()
    flags = {flag: not args.raw for flag in PROCESSING} | {REFACTOR: args.refactor}
    model, tokens = load(args.model_dir, **flags), [int(t) for t in args.tokens.split(",")]
    cache = run(model, tokens)
    answers = [int(t) for t in args.answers.split(",")]
    rows = tables(model, cache, answers) | attr_tables(model, cache, answers)
    rows |= token_tables(cache, tokens) | position_tables(cache)
    rows |= score_tables(model, cache, tokens)
    rows |= top_neurons(rows["neuron_attrs"]) if "neuron_attrs" in rows else {}
    for name, value in rows.items():
        print(f"{name:40s} {np.array2string(value, precision=9, threshold=50)}")


if __name__ == "__main__":
    main()
