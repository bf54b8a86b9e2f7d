"""Sums of what writes to the residual stream, from the activations of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from .datasets import _index
from .names import H5LensError, Pos, Rows, UnknownName
from .run_cache import RunCache
from .stack import _weight, _Where, Stack


class RunStacks(RunCache):
    """And what is summed from them: TransformerLens's decompose_resid and its like."""

    def decompose_resid(self, rows: Rows = None, layer: int | None = -1, *, mode: str = "all", mlp_input: bool = False,
                        apply_ln: bool = False, pos: Pos = None, incl_embeds: bool = True) -> Stack:
        """What is written to the residual stream before a layer's input: embed, pos_embed, 0_attn_out, 0_mlp_out, …

        layer: from 0; -1, None or the number of layers is the end, before the unembedding. mlp_input: up to the input
        of that layer's MLP. mode: "all", "mlp" or "attn". apply_ln: centred (LayerNorm) and divided by the scale that
        the model had there. rows as in `cache`, pos as in `activation_cache`, but that a single row or position ("read",
        a number) drops its dimension. float32; NaN past a prompt's end.
        """
        if mode not in ("all", "mlp", "attn"):
            raise ValueError(f"mode is \"all\", \"mlp\" or \"attn\", not {mode!r}")
        last, config = self._layer(layer, mlp_input), self.model_config
        if mode == "mlp":
            self._need_mlps("mode=\"mlp\"")
        parts: dict[str, tuple[str, ...]] = {}
        if incl_embeds:
            parts["embed"] = ("hook_embed",)
            if config["positional_embedding_type"] == "standard":
                parts["pos_embed"] = ("hook_pos_embed",)
        for i in range(last):
            if mode != "mlp":
                parts[f"{i}_attn_out"] = (f"blocks.{i}.hook_attn_out",)
            if mode != "attn" and not config.get("attn_only"):
                parts[f"{i}_mlp_out"] = (f"blocks.{i}.hook_mlp_out",)
        if mlp_input and mode != "mlp" and not config["parallel_attn_mlp"]:  # else the MLP reads resid_pre
            parts[f"{last}_attn_out"] = (f"blocks.{last}.hook_attn_out",)
        return self._stack("decompose_resid", parts, rows, pos, self._norm(last, mlp_input) if apply_ln else None)

    def accumulated_resid(self, rows: Rows = None, layer: int | None = -1, *, incl_mid: bool = False,
                          apply_ln: bool = False, mlp_input: bool = False, pos: Pos = None) -> Stack:
        """The residual stream at the input of each layer, up to a layer's: 0_pre, 1_pre, …, at the end final_post.

        incl_mid: 0_mid, …, the MLPs' inputs, too; mlp_input: that layer's. apply_ln divides all of them by the scale of
        the last one; `apply_ln_to_stack(stack, recompute_ln=True)` each by its own, as the tables' lens does. The rest
        as in `decompose_resid`.
        """
        last, parallel = self._layer(layer, mlp_input), self.model_config["parallel_attn_mlp"]
        if incl_mid:
            self._need_mlps("incl_mid")
        if incl_mid and parallel:
            raise H5LensError(f"{self.path}: incl_mid: the model's attention and MLP are parallel: there is no resid_mid")
        parts: dict[str, tuple[str, ...]] = {}
        for i in range(last + 1):
            parts["final_post" if i == self.model_config["n_layers"] else f"{i}_pre"] = self._before(i)
            if incl_mid and i < last or mlp_input and i == last and not parallel:
                parts[f"{i}_mid"] = (f"blocks.{i}.hook_resid_mid", f"blocks.{i}.hook_mlp_in")
        return self._stack("accumulated_resid", parts, rows, pos, self._norm(last, mlp_input) if apply_ln else None)

    def stack_head_results(self, rows: Rows = None, layer: int | None = -1, *, incl_remainder: bool = False,
                           apply_ln: bool = False, pos: Pos = None, weights: Mapping[str, Any] | None = None) -> Stack:
        """What each head of the layers before `layer` writes to the residual stream, without b_O: L0H0, L0H1, …

        From hook_result where it is stored, else from hook_z and the W_O of weights. incl_remainder: last, "remainder",
        what else is in the stream at the input of that layer. The rest as in `decompose_resid`.
        """
        what, last, where = "stack_head_results", self._layer(layer), self._where(rows, pos)
        results = [(f"blocks.{i}.attn.hook_result", f"blocks.{i}.attn.hook_z") for i in range(last)]
        norm = self._norm(last) if apply_ln else None
        rest = ([self._before(last)] if incl_remainder else []) + ([(f"{norm}.hook_scale",)] if norm else [])
        stored = self._stored(what, [*results, *rest])
        n, d_model = int(self.model_config["n_heads"]), int(self.model_config["d_model"])
        out = np.empty((last * n + incl_remainder, *where.shape, d_model), np.float32)
        for i, d in enumerate(stored[:last]):
            x = np.moveaxis(self._at(d, where), -2, 0)  # [head, …, d_model or d_head]
            mine = out[i * n:(i + 1) * n]
            if results[i][0] in self._cache:
                mine[...] = x
                continue
            w_o = np.asarray(_weight(weights, f"blocks.{i}.attn.W_O", f"{what}, from hook_z,"), np.float32)
            if w_o.shape != (n, x.shape[-1], d_model):
                raise ValueError(f"blocks.{i}.attn.W_O is {w_o.shape}, not {(n, x.shape[-1], d_model)}")
            for head, z, w in zip(mine, x, w_o):
                head[...] = z @ w
        labels = [f"L{i}H{h}" for i in range(last) for h in range(n)]
        if incl_remainder:
            out[-1] = self._at(stored[last], where) - out[:-1].sum(0, dtype=np.float64)
            labels.append("remainder")
        if norm:
            self._scale(out, where, norm)
        return out.view(Stack)._tell(labels, ("component", *where.axes, "d_model"), where)

    def stack_neuron_results(self, rows: Rows = None, layer: int | None = -1, *, neurons: slice = slice(None),
                             apply_ln: bool = False, pos: Pos = None,
                             weights: Mapping[str, Any] | None = None) -> Stack:
        """What each neuron of the layers before `layer` writes to the residual stream, without b_out: L0N0, L0N1, …

        From mlp.hook_post and the W_out of weights; neurons: which of each layer. All of them are d_mlp · d_model numbers
        a position and layer: the table `neuron_attrs` has what they add to the answers' logits, at no such cost.
        """
        what, last, where = "stack_neuron_results", self._layer(layer), self._where(rows, pos)
        self._need_mlps(what)
        if self.model_config.get("num_experts"):
            raise H5LensError(f"{self.path}: {what}: the model's MLPs are experts, whose neurons are not shown: "
                              "get_full_resid_decomposition(expand_neurons=False) has what each layer's write together")
        stored = self._stored(what, [(f"blocks.{i}.mlp.hook_post",) for i in range(last)])
        d_model, d_mlp = int(self.model_config["d_model"]), stored[0].shape[-1] if stored else 0
        which = range(d_mlp)[neurons]
        out = np.empty((last * len(which), *where.shape, d_model), np.float32)
        for i, d in enumerate(stored):
            post = np.moveaxis(self._at(d, where), -1, 0)[neurons]  # [neuron, …]
            w_out = np.asarray(_weight(weights, f"blocks.{i}.mlp.W_out", what), np.float32)
            if w_out.shape != (d_mlp, d_model):
                raise ValueError(f"blocks.{i}.mlp.W_out is {w_out.shape}, not {(d_mlp, d_model)}")
            for mine, x, w in zip(out[i * len(which):], post, w_out[neurons]):
                np.multiply(x[..., None], w, out=mine)
        if apply_ln:
            self._scale(out, where, self._norm(last))
        labels = [f"L{i}N{n}" for i in range(last) for n in which]
        return out.view(Stack)._tell(labels, ("component", *where.axes, "d_model"), where)

    def get_full_resid_decomposition(self, rows: Rows = None, layer: int | None = -1, *, expand_neurons: bool = True,
                                     apply_ln: bool = False, pos: Pos = None,
                                     weights: Mapping[str, Any] | None = None) -> Stack:
        """The residual stream at a layer's input in its smallest parts: each head, each neuron (or, without
        expand_neurons, 0_mlp_out, …), embed, pos_embed, and bias: the b_O, and with neurons the b_out, of those layers.
        Of a model without MLPs (attn_only) there are none of theirs.

        As TransformerLens's, which has a bias of zeros without layers, too. The parts' sum is the stream.
        """
        last, what = self._layer(layer), "get_full_resid_decomposition"
        heads = self.stack_head_results(rows, last, pos=pos, weights=weights)
        embeds, where = self.decompose_resid(rows, 0, pos=pos), self._where(rows, pos)
        parts, biases = [heads, embeds], ["attn.b_O"]
        if not self.model_config.get("attn_only"):
            parts.insert(1, self.stack_neuron_results(rows, last, pos=pos, weights=weights) if expand_neurons else
                         self.decompose_resid(rows, last, mode="mlp", incl_embeds=False, pos=pos))
            biases += ["mlp.b_out"] if expand_neurons else []
        bias = np.zeros((1, *heads.shape[1:]), np.float32)
        for i in range(last):
            for name in biases:
                bias += np.asarray(_weight(weights, f"blocks.{i}.{name}", what), np.float32)
        bias[np.broadcast_to((where.at < 0).reshape(where.shape)[..., None], bias.shape[1:])[None]] = np.nan
        out = np.concatenate([*parts, bias])
        if apply_ln:
            self._scale(out, where, self._norm(last))
        labels = [*(label for part in parts for label in part.labels or []), "bias"]
        return out.view(Stack)._tell(labels, ("component", *where.axes, "d_model"), where)

    def apply_ln_to_stack(self, stack: np.ndarray, layer: int | None = -1, *, mlp_input: bool = False,
                          recompute_ln: bool = False, weights: Mapping[str, Any] | None = None, rows: Rows = None,
                          pos: Pos = None) -> Stack:
        """A stack as the input of a layer's norm: centred (LayerNorm), divided by the scale that the model had there.

        recompute_ln: each component by its own scale, as if it were the whole stream. Of a run whose norms are not
        folded (fold_ln off) weights adds the rest of the norm: times its w, and recomputed plus its b, which is then
        asked for. stack: what these methods give, or any array [component, prompt, pos, d_model] with the rows and pos
        that it was made of.
        """
        last = self._layer(layer, mlp_input)
        norm, where = self._norm(last, mlp_input), self._where_of(stack, rows, pos)
        out = np.array(stack, dtype=np.result_type(stack, np.float32))
        if norm and recompute_ln:
            self._center(out, norm)
            out /= np.sqrt(np.mean(out * out, -1, keepdims=True, dtype=np.float64) + self.model_config["eps"])
        else:
            self._scale(out, where, norm)
        if norm and not self._folded() and (recompute_ln or weights is not None):
            out *= np.asarray(_weight(weights, f"{norm}.w", "apply_ln_to_stack"))
            if recompute_ln and self._centers(norm):
                out += np.asarray(_weight(weights, f"{norm}.b", "apply_ln_to_stack"))
        return Stack._like(stack, out, where)

    def logit_attrs(self, stack: np.ndarray, tokens: Any, incorrect_tokens: Any = None, *,
                    weights: Mapping[str, Any] | None = None, rows: Rows = None, pos: Pos = None) -> Stack:
        """What each component of a stack adds to the logit of a token, or to it less that of an incorrect one.

        tokens: an id, one for each prompt, or [prompt, pos] (-1, as past a prompt's end, gives NaN); the columns of
        weights's W_U. With all components of `decompose_resid`, the sum is the logit less b_U (and, of norms that are
        not folded, less ln_final's b times W_U). The stack is one without apply_ln. Returns it without its last
        dimension. rows and pos as in `apply_ln_to_stack`.
        """
        where = self._where_of(stack, rows, pos)
        toward = self._directions(tokens, where, weights)
        if incorrect_tokens is not None:
            if np.shape(tokens) != np.shape(incorrect_tokens):
                raise ValueError(f"tokens are {list(np.shape(tokens))}, incorrect_tokens "
                                 f"{list(np.shape(incorrect_tokens))}")
            toward -= self._directions(incorrect_tokens, where, weights)
        scale: Any = 1.0
        if (norm := self._norm(self._layer(None))) is None:
            pass
        elif self._folded():
            if "ln_final.w" in (weights or ()) and (np.asarray(_weight(weights, "ln_final.w", "logit_attrs")) != 1).any():
                raise H5LensError("the weights have an ln_final.w, and the run's is folded into W_U: they are of other "
                                  "settings (weights.fold_ln)")
        else:
            toward *= np.asarray(_weight(weights, "ln_final.w", "logit_attrs of a run without fold_ln"))
        if norm:
            self._center(toward, norm)  # instead of every component
            scale = self._at(self._stored("logit_attrs", [(f"{norm}.hook_scale",)])[0], where)[..., 0]
        x = np.asarray(stack)
        out = np.empty(x.shape[:-1], np.result_type(x, np.float32))
        for i in np.ndindex(x.shape[:-1 - len(where.shape)]):
            out[i] = np.einsum("...d,...d->...", x[i], toward, dtype=np.float64) / scale
        return Stack._like(stack, out, where)

    def _layer(self, layer: int | None, mlp_input: bool = False) -> int:
        """A layer whose input is meant; the number of layers is the end."""
        n = int(self.model_config["n_layers"])
        last = n if layer is None or layer == -1 else layer
        if not isinstance(last, (int, np.integer)) or not 0 <= last <= n:
            raise UnknownName(f"no layer {layer!r}: the model has {n} layers: 0 to {n - 1}, and {n} or -1 for the end")
        if mlp_input:
            self._need_mlps("mlp_input")
        if mlp_input and last == n:
            raise ValueError(f"mlp_input is for layers 0 to {n - 1}: after the last comes the unembedding")
        return int(last)

    def _need_mlps(self, what: str) -> None:
        if self.model_config.get("attn_only"):
            raise H5LensError(f"{self.path}: {what}: the model has no MLPs (attn_only)")

    @staticmethod
    def _before(layer: int) -> tuple[str, ...]:
        """The names of the residual stream at a layer's input."""
        return (f"blocks.{layer}.hook_resid_pre", *([f"blocks.{layer - 1}.hook_resid_post"] if layer else []))

    def _norm(self, layer: int, mlp_input: bool = False) -> str | None:
        """The norm of an input's name; None of a model without norms, whose stacks are left as they are."""
        if self.model_config["normalization_type"] is None:
            return None
        return "ln_final" if layer == self.model_config["n_layers"] else f"blocks.{layer}.ln{2 if mlp_input else 1}"

    def _centers(self, norm: str) -> bool:
        config = self.model_config
        return str(config["normalization_type"]).startswith("LN") and not (norm == "ln_final" and config.get("final_rms"))

    def _folded(self) -> bool:
        return str(self.model_config["normalization_type"]).endswith("Pre")

    def _where(self, rows: Rows, pos: Pos) -> _Where:
        index = _index(rows, len(self))
        slot = self._slots(index, pos)
        at = np.where(slot < 0, -1, np.take_along_axis(self.positions(index), np.maximum(slot, 0), 1))
        return _Where(self.path, index, slot, at, isinstance(rows, (int, np.integer)),
                      pos is not None and not isinstance(pos, slice))

    def _where_of(self, stack: np.ndarray, rows: Rows, pos: Pos) -> _Where:
        """Of a stack, its own; of another array [component, …], what the caller says."""
        known = stack._where if isinstance(stack, Stack) else None
        if known is not None and rows is None and pos is None:
            if known.path != self.path:
                raise H5LensError(f"{self.path}: this stack is of {known.path}")
            where = known
        else:
            where = self._where(rows, pos)
        want = (*where.shape, int(self.model_config["d_model"]))
        if np.ndim(stack) < len(want) or np.shape(stack)[-len(want):] != want:
            raise ValueError(f"a stack of these rows and positions is {['component', *want]}, and this one is "
                             f"{list(np.shape(stack))}: rows= and pos= say what an array without labels is of")
        return where

    def _stored(self, what: str, wanted: Sequence[tuple[str, ...]]) -> list[h5py.Dataset]:
        """The activations, each by the first of its names that the file has."""
        there = [next((self._cache[n] for n in names if n in self._cache), None) for names in wanted]
        if missing := [" or ".join(names) for names, d in zip(wanted, there) if d is None]:
            globs = dict.fromkeys(re.sub(r"^blocks\.\d+\.", "blocks.*.", names[0])
                                  for names, d in zip(wanted, there) if d is None)
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UnknownName(f"{self.path}: {what} needs {missing[0]}{more}, which the file has not: store it with "
                              f"`h5lens run --hooks '{','.join(globs)}'` (cache.hooks), beside what else is wanted")
        return [d for d in there if d is not None]

    def _at(self, d: h5py.Dataset, where: _Where) -> np.ndarray:
        """An activation at a stack's rows and positions: [prompt, pos, …] less the dimensions of single ones."""
        got = self._batch(d, where.rows, where.slot, None)
        return got.reshape(where.shape + got.shape[2:])

    def _stack(self, what: str, parts: dict[str, tuple[str, ...]], rows: Rows, pos: Pos, norm: str | None) -> Stack:
        stored = self._stored(what, [*parts.values(), *([(f"{norm}.hook_scale",)] if norm else [])])
        where = self._where(rows, pos)
        out = np.empty((len(parts), *where.shape, int(self.model_config["d_model"])), np.float32)
        for i, d in zip(range(len(parts)), stored):
            out[i] = self._at(d, where)
        if norm:
            self._scale(out, where, norm)
        return out.view(Stack)._tell([*parts], ("component", *where.axes, "d_model"), where)

    def _center(self, x: np.ndarray, norm: str) -> None:
        if self._centers(norm):
            x -= x.mean(-1, keepdims=True, dtype=np.float64)

    def _scale(self, x: np.ndarray, where: _Where, norm: str | None) -> None:
        """Centred and divided by the norm's own scale, in place."""
        if not norm:
            return
        self._center(x, norm)
        x /= self._at(self._stored("the norm's scale", [(f"{norm}.hook_scale",)])[0], where)

    def _directions(self, tokens: Any, where: _Where, weights: Mapping[str, Any] | None) -> np.ndarray:
        """W_U's columns, float64 [prompt, pos, d_model] with 1 for what the tokens don't differ by."""
        ids, w_u = np.asarray(tokens), _weight(weights, "unembed.W_U", "logit_attrs")
        d_model, n = int(self.model_config["d_model"]), self.model_config["d_vocab"]
        n = int(self.model_config.get("d_vocab_out", n))
        if not np.issubdtype(ids.dtype, np.integer):
            raise TypeError(f"tokens are ids, whole numbers, as in run.prompts[\"answers\"]; not {tokens!r}")
        if ids.shape != where.shape[:ids.ndim]:
            raise ValueError(f"tokens are {list(ids.shape)}: one, or as the stack's {list(where.axes)}: "
                             f"{list(where.shape)}, or the first of these")
        if ((ids < -1) | (ids >= n)).any():
            raise IndexError(f"no token {int(ids[(ids < -1) | (ids >= n)][0])}: the model has {n} logits")
        if tuple(w_u.shape) != (d_model, n):
            raise ValueError(f"unembed.W_U is {list(w_u.shape)}, not {[d_model, n]}")
        known, back = np.unique(np.maximum(ids, 0), return_inverse=True)
        columns = np.asarray(w_u[:, known] if len(known) < 64 else np.asarray(w_u)[:, known], np.float64)
        got = np.where(ids[..., None] < 0, np.nan, columns.T[back.reshape(ids.shape)])
        return got.reshape(ids.shape + (1,) * (len(where.shape) - ids.ndim) + (d_model,))
