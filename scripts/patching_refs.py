"""Interventions by Hugging Face's modules and by TransformerLens 2.16, for scripts/check_patching.py.

Nothing of h5lens is in here, and no forward pass of ours: HuggingFace edits its own model through plain forward hooks
(the softmax of attention, which is no module, is wrapped while a pass runs), TransformerLens runs run_with_hooks, and
by_patching_module calls transformer_lens.patching itself.

An edit changes, in place, what a model has computed at one place: an activation and a layer. Their shapes are the same on
both sides (B batch, P position, H heads, or key/value heads of k and v):

    resid_pre, resid_mid, resid_post, attn_out, mlp_out   [B, P, d_model]
    q, k, v (before the rotation and a norm), z           [B, P, H, d_head]
    post (Hugging Face's only)                            [B, P, d_mlp]
    scores, pattern (before and behind the softmax)       [B, H, P, P]

A grid is an activation and the axes of its cells; a cell's run is a row of a batch: the base run with the source's value
at the cell's indices, and at all of an axis that the grid lacks. Patching (the source is the other prompt's run) and
ablation (zeros, a mean, another row's run) are the same sweep; a set of heads, a knockout or a vector that is added are a
run with other edits.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformer_lens import patching

from fidelity_refs import load_hf, load_tl, widened

patching.tqdm = lambda x: x  # no progress bars
MOST_TOKENS = 8192  # of a batch
Edit = Callable[[torch.Tensor], None]
Edits = dict[tuple[str, int], Edit]  # by activation and layer
Source = dict[tuple[str, int], torch.Tensor]  # one prompt's values, without batch dimension
Grid = tuple[str, tuple[str, ...]]  # activation; axes

PATCH: dict[str, Grid] = {
    "resid_pre": ("resid_pre", ("layer", "pos")),
    "resid_mid": ("resid_mid", ("layer", "pos")),
    "attn_out": ("attn_out", ("layer", "pos")),
    "mlp_out": ("mlp_out", ("layer", "pos")),
    "attn_head_out_all_pos": ("z", ("layer", "head")),
    "attn_head_q_all_pos": ("q", ("layer", "head")),
    "attn_head_k_all_pos": ("k", ("layer", "kv_head")),
    "attn_head_v_all_pos": ("v", ("layer", "kv_head")),
    "attn_head_pattern_all_pos": ("pattern", ("layer", "head")),
    "attn_head_out_by_pos": ("z", ("layer", "pos", "head")),
    "attn_head_q_by_pos": ("q", ("layer", "pos", "head")),
    "attn_head_k_by_pos": ("k", ("layer", "pos", "kv_head")),
    "attn_head_v_by_pos": ("v", ("layer", "pos", "kv_head")),
    "attn_head_pattern_by_pos": ("pattern", ("layer", "head", "dest_pos")),
    "attn_head_pattern_dest_src_pos": ("pattern", ("layer", "head", "dest_pos", "src_pos")),
}
ABLATE: dict[str, Grid] = {
    "attn_head_out_all_pos": ("z", ("layer", "head")),
    "attn_out": ("attn_out", ("layer",)),
    "mlp_out": ("mlp_out", ("layer",)),
}
SQUARE = ("scores", "pattern")
BY_HEAD = ("q", "k", "v", "z")


def dims_of(activation: str) -> tuple[str, ...]:
    """The dimensions of an activation that a cell can name."""
    if activation in SQUARE:
        return ("head", "dest_pos", "src_pos")
    return ("pos", "kv_head" if activation in ("k", "v") else "head") if activation in BY_HEAD else ("pos",)


# --- Hugging Face ---------------------------------------------------------------------------

# What a family calls its blocks, attention, attention's last matrix and the MLP's; the others have Llama's names.
BLOCKS = {"gpt2": "transformer.h", "gpt_neo": "transformer.h", "gptj": "transformer.h", "gpt_bigcode": "transformer.h",
          "bloom": "transformer.h", "gpt_neox": "gpt_neox.layers", "opt": "model.decoder.layers"}
ATTENTION = {"gpt2": "attn", "gptj": "attn", "gpt_bigcode": "attn", "gpt_neo": "attn.attention", "gpt_neox": "attention",
             "bloom": "self_attention"}
W_O = {"gpt2": "c_proj", "gpt_bigcode": "c_proj", "gpt_neo": "out_proj", "gptj": "out_proj", "opt": "out_proj",
       "gpt_neox": "dense", "bloom": "dense", "phi": "dense"}
W_OUT = {"gpt2": "mlp.c_proj", "gpt_bigcode": "mlp.c_proj", "gpt_neo": "mlp.c_proj", "starcoder2": "mlp.c_proj",
         "gptj": "mlp.fc_out", "phi": "mlp.fc2", "opt": "fc2", "gpt_neox": "mlp.dense_4h_to_h", "bloom": "mlp.dense_4h_to_h"}
BEFORE_MLP = {"gpt2": "ln_2", "gpt_neo": "ln_2", "gpt_bigcode": "ln_2", "opt": "final_layer_norm", "olmo2": "mlp",
              "gemma2": "pre_feedforward_layernorm", "gemma3_text": "pre_feedforward_layernorm"}
NORMS_AFTER = ("gemma2", "gemma3_text", "olmo2")


class HuggingFace:
    """A model on its own weights, edited by forward hooks."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.dtype, self.model = dtype, load_hf(str(folder), dtype)
        c = self.model.config
        self.kind = c.model_type
        self.n_layers, self.heads = c.num_hidden_layers, c.num_attention_heads
        self.kv_heads = getattr(c, "num_key_value_heads", None) or (1 if getattr(c, "multi_query", False) else self.heads)
        self.d_head = getattr(c, "head_dim", None) or c.hidden_size // self.heads
        self.parallel = self.kind in ("phi", "gptj") or (self.kind in ("gpt_neox", "stablelm") and c.use_parallel_residual)
        self.batch = 0  # of the pass at hand

    def block(self, layer: int) -> Any:
        return self.model.get_submodule(BLOCKS.get(self.kind, "model.layers"))[layer]

    def attention(self, layer: int) -> Any:
        return self.block(layer).get_submodule(ATTENTION.get(self.kind, "self_attn"))

    def w_o(self, layer: int) -> Any:
        return getattr(self.attention(layer), W_O.get(self.kind, "o_proj"))

    def w_out(self, layer: int) -> Any:
        return self.block(layer).get_submodule(W_OUT.get(self.kind, "mlp.down_proj"))

    def added(self, activation: str, layer: int) -> Any:
        """The module that gives attn_out or mlp_out; granite multiplies it before it is added."""
        if self.kind in NORMS_AFTER:
            b = self.block(layer)
            return b.post_attention_layernorm if activation == "attn_out" else b.post_feedforward_layernorm
        return self.w_o(layer) if activation == "attn_out" else self.w_out(layer)

    def _qkv(self, a: Any, which: str) -> tuple[Any, Callable[[torch.Tensor], torch.Tensor]]:
        """The module whose output holds q, k or v, and its part of it."""
        i, n, kv, d = "qkv".index(which), self.heads, self.kv_heads, self.d_head
        if self.kind == "gpt2":  # all queries, all keys, all values
            return a.c_attn, lambda x: x.unflatten(-1, (3, n, d))[..., i, :, :]
        if self.kind in ("gpt_neox", "bloom"):  # each head's three
            return a.query_key_value, lambda x: x.unflatten(-1, (n, 3, d))[..., i, :]
        if self.kind in ("gpt_bigcode", "phi3"):
            module = a.c_attn if self.kind == "gpt_bigcode" else a.qkv_proj
            return module, lambda x: x.split((n * d, kv * d, kv * d), -1)[i].unflatten(-1, (-1, d))
        return getattr(a, f"{which}_proj"), lambda x: x.unflatten(-1, (-1, d))

    def _whole(self, x: torch.Tensor) -> torch.Tensor:
        """OPT's MLP has a batch's rows in one."""
        return x if x.ndim == 3 else x.view(self.batch, -1, x.shape[-1])

    def _hook(self, activation: str, layer: int, edit: Edit) -> Any:
        """A hook's handle. Dropout is off, so that what a module gives is what goes on."""
        b, a = self.block(layer), self.attention(layer)
        if activation == "resid_pre":
            return b.register_forward_pre_hook(lambda m, args: edit(args[0]))
        if activation == "resid_mid":  # what the second norm is given is also what is added later: one tensor
            norm = getattr(b, BEFORE_MLP.get(self.kind, "post_attention_layernorm"))
            return norm.register_forward_pre_hook(lambda m, args: edit(self._whole(args[0])))
        if activation == "z":
            return self.w_o(layer).register_forward_pre_hook(lambda m, args: edit(args[0].unflatten(-1, (-1, self.d_head))))
        if activation == "post":
            return self.w_out(layer).register_forward_pre_hook(lambda m, args: edit(self._whole(args[0])))
        if activation == "resid_post":
            return b.register_forward_hook(lambda m, args, y: edit(y if torch.is_tensor(y) else y[0]))
        if activation in ("attn_out", "mlp_out"):
            return self.added(activation, layer).register_forward_hook(lambda m, args, y: edit(self._whole(y)))
        module, part = self._qkv(a, activation)
        return module.register_forward_hook(lambda m, args, y: edit(part(y)))

    @contextlib.contextmanager
    def _softmax(self, edits: Edits) -> Iterator[None]:
        """Attention is the only one that calls it, once a layer."""
        plain, calls = torch.nn.functional.softmax, itertools.count()

        def edited(x: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
            layer = next(calls)
            if ("scores", layer) in edits:
                x = x.clone()
                edits["scores", layer](x)
            y = plain(x, *args, **more)
            if ("pattern", layer) in edits:
                edits["pattern", layer](y)
            return y

        torch.nn.functional.softmax = edited
        try:
            yield
        finally:
            torch.nn.functional.softmax = plain
        if next(calls) != self.n_layers:
            raise RuntimeError("softmax was not called once a layer")

    def run(self, tokens: torch.Tensor, edits: Edits) -> torch.Tensor:
        """tokens [B, P] -> logits [B, P, V]"""
        self.batch = len(tokens)
        hooks = [self._hook(what, layer, edit) for (what, layer), edit in edits.items() if what not in SQUARE]
        try:
            with widened(self.dtype), self._softmax(edits):
                return self.model(tokens, use_cache=False).logits
        finally:
            for hook in hooks:
                hook.remove()


# --- TransformerLens ------------------------------------------------------------------------

HOOKS = {**{x: f"hook_{x}" for x in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")},
         **{x: f"attn.hook_{x}" for x in (*BY_HEAD, "pattern")}, "scores": "attn.hook_attn_scores"}


class TransformerLens:
    """HookedTransformer, on raw or processed weights."""

    def __init__(self, folder: Path, dtype: torch.dtype, flags: dict[str, bool]) -> None:
        self.dtype, self.model = dtype, load_tl(load_hf(str(folder), dtype), flags, dtype)
        c = self.model.cfg
        self.n_layers, self.heads, self.kv_heads = c.n_layers, c.n_heads, c.n_key_value_heads or c.n_heads
        self.parallel = c.parallel_attn_mlp

    def run(self, tokens: torch.Tensor, edits: Edits) -> torch.Tensor:
        hooks = [(f"blocks.{layer}.{HOOKS[what]}", lambda x, hook, edit=edit: edit(x)) for (what, layer), edit in edits.items()]
        with widened(self.dtype):
            return self.model.run_with_hooks(tokens, fwd_hooks=hooks)


Backend = HuggingFace | TransformerLens


def by_patching_module(b: TransformerLens, name: str, base: list[int], source: list[int], read: int) -> torch.Tensor:
    """transformer_lens.patching.get_act_patch_<name>, of logits: [*axes, V].

    The metric that it calls keeps the logits and gives their number, so that its result says which belong to a cell. Its
    keys' and values' grids run over all heads, past the end under grouped queries: there they are given the cells.
    """
    kept: list[torch.Tensor] = []

    def metric(logits: torch.Tensor) -> torch.Tensor:
        kept.append(logits[0, read].clone())
        return torch.tensor(float(len(kept) - 1))

    with widened(b.dtype):
        _, cache = b.model.run_with_cache(torch.tensor([source]))
        one, tokens = getattr(patching, f"get_act_patch_{name}"), torch.tensor([base])
        if "kv_head" not in PATCH[name][1] or b.kv_heads == b.heads:
            number = one(b.model, tokens, cache, metric)
        else:
            more = dict(one.keywords)
            shape = shape_of(b, PATCH[name], len(base))
            cells = patching.make_df_from_ranges(shape, more.pop("index_axis_names"))
            number = one.func(b.model, tokens, cache, metric, index_df=cells, **more).reshape(shape)
    return torch.stack(kept)[number.long()]


# --- sweeps ---------------------------------------------------------------------------------

def shape_of(b: Backend, grid: Grid, n_pos: int) -> tuple[int, ...]:
    extent = {"layer": b.n_layers, "head": b.heads, "kv_head": b.kv_heads}
    return tuple(extent.get(axis, n_pos) for axis in grid[1])


def grids_of(b: Backend) -> dict[str, Grid]:
    """Those of PATCH that the family has."""
    return {name: grid for name, grid in PATCH.items() if grid[0] != "resid_mid" or not b.parallel}


def capture(b: Backend, tokens: list[int]) -> tuple[torch.Tensor, Source]:
    """One prompt's logits, [P, V], and what its activations are."""
    found: Source = {}

    def keep(at: tuple[str, int]) -> Edit:
        return lambda x: found.__setitem__(at, x[0].clone())

    names = dict.fromkeys(what for what, _ in (*grids_of(b).values(), *ABLATE.values()))
    at = itertools.product(names, range(b.n_layers))
    logits = b.run(torch.tensor([tokens]), {a: keep(a) for a in at})
    return logits[0], found


def replacing(value: torch.Tensor, places: list[tuple[int, tuple[Any, ...]]]) -> Edit:
    """Rows of the batch get the source's value at their places."""
    def edit(x: torch.Tensor) -> None:
        for row, at in places:
            x[row][at] = value[at]
    return edit


def cells_of(b: Backend, grid: Grid, n_pos: int) -> list[tuple[tuple[str, int], tuple[Any, ...]]]:
    """Each cell's activation and layer, and its place there."""
    activation, axes = grid
    each = (dict(zip(axes, cell)) for cell in itertools.product(*(range(n) for n in shape_of(b, grid, n_pos))))
    return [((activation, cell["layer"]), tuple(cell.get(d, slice(None)) for d in dims_of(activation))) for cell in each]


def sweep(b: Backend, grids: dict[str, Grid], base: list[int], source: Source, read: int) -> dict[str, torch.Tensor]:
    """Logits at the read position after each cell's intervention: [*axes, V] of each grid."""
    cells = {name: cells_of(b, grid, len(base)) for name, grid in grids.items()}
    every, step, found = [cell for of in cells.values() for cell in of], max(1, MOST_TOKENS // len(base)), []
    for i in range(0, len(every), step):
        places: dict[tuple[str, int], list[tuple[int, tuple[Any, ...]]]] = {}
        some = every[i:i + step]
        for row, (at, place) in enumerate(some):
            places.setdefault(at, []).append((row, place))
        edits = {at: replacing(source[at], of) for at, of in places.items()}
        found.append(b.run(torch.tensor([base] * len(some)), edits)[:, read].clone())
    logits = torch.cat(found).split([len(of) for of in cells.values()])
    return {name: x.unflatten(0, shape_of(b, grids[name], len(base))) for name, x in zip(cells, logits)}


def ablate_heads(b: Backend, heads: list[tuple[int, int]], base: list[int], source: Source, read: int) -> torch.Tensor:
    """The heads of a set together, (layer, head) each: [V]."""
    def edit(layer: int) -> Edit:
        def change(x: torch.Tensor) -> None:
            for _, h in (a for a in heads if a[0] == layer):
                x[:, :, h] = source["z", layer][:, h]
        return change

    edits = {("z", layer): edit(layer) for layer in {layer for layer, _ in heads}}
    return b.run(torch.tensor([base]), edits)[0, read].clone()


def zeros_of(source: Source) -> Source:
    return {at: torch.zeros_like(x) for at, x in source.items()}


def mean_of(sources: list[Source], n_pos: int, by_position: bool) -> Source:
    """The mean of the data set's runs, for n_pos positions: of the prompts that have a position, or of all tokens."""
    out: Source = {}
    for at in sources[0]:
        if at[0] in SQUARE:
            continue
        every = [s[at] for s in sources]
        if by_position:
            out[at] = torch.stack([torch.stack([x[p] for x in every if len(x) > p]).mean(0) for p in range(n_pos)])
        else:
            mean = torch.cat(every).mean(0)
            out[at] = mean.expand(n_pos, *mean.shape)
    return out


# --- metrics --------------------------------------------------------------------------------

def metrics_of(logits: torch.Tensor, clean: torch.Tensor, answers: list[int]) -> dict[str, np.ndarray]:
    """logits [..., V] and those of the clean run, [V], at the read position."""
    logits, clean = logits.double(), clean.double()
    log, clean_log = logits.log_softmax(-1), clean.log_softmax(-1)
    out = {"logit_diff": logits[..., answers[:1]] - logits[..., answers[1:]], "answer_logit": logits[..., answers],
           "answer_logprob": log[..., answers], "kl_divergence": (clean_log.exp() * (clean_log - log)).sum(-1)}
    return {name: x.numpy() for name, x in out.items()}
