"""Direct logit attributions by Hugging Face's modules, for scripts/check_attrs.py.

No forward pass and no weights of ours: a model of transformers runs, plain forward hooks keep what is added to its
stream, and what its heads and neurons give to that. What a norm behind attention or the MLP does to a part is taken from
its input and output, place by place; granite's multipliers and the last norm's weight from its own objects. Raw weights.

In: a folder, tokens, answers. Out: logit_attrs, head_attrs and neuron_attrs of every position, and how far sums are off:

    logit     Σ components, capped, beside the model's own logits
    attn_out  Σ heads + b_O beside what attention adds to the stream
    mlp_out   Σ neurons + b_out beside what the MLP adds
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fidelity_refs import widened
from patching_refs import NORMS_AFTER, HuggingFace, Source
from truth import LENS_MODES

Tables = dict[str, np.ndarray]
NO_BIAS = torch.zeros(())
FINAL = {"gpt2": "transformer.ln_f", "gpt_neo": "transformer.ln_f", "gptj": "transformer.ln_f", "gpt_bigcode": "transformer.ln_f",
         "bloom": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm", "opt": "model.decoder.final_layer_norm",
         "phi": "model.final_layernorm"}
EMBED = {"bloom": "transformer.word_embeddings_layernorm"}


class Attributions:
    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.hf = HuggingFace(folder, dtype)
        c = self.hf.model.config
        self.final = self.hf.model.get_submodule(FINAL.get(self.hf.kind, "model.norm"))
        self.times = getattr(c, "residual_multiplier", 1.0) if self.hf.kind == "granite" else 1.0
        head = self.hf.model.get_output_embeddings()
        scaling = getattr(c, "logits_scaling", 1.0) if self.hf.kind == "granite" else 1.0
        self.w_u = head.weight.T / scaling
        self.b_u = torch.zeros(c.vocab_size, dtype=dtype) if head.bias is None else head.bias
        self.cap = getattr(c, "final_logit_softcapping", None)

    def _final_parts(self) -> tuple[torch.Tensor, torch.Tensor, bool, float]:
        """Weight, bias, whether it centres, epsilon."""
        n = self.final
        if isinstance(n, torch.nn.LayerNorm):
            return n.weight, n.bias, True, n.eps
        gemma = self.hf.kind.startswith("gemma")
        return n.weight + (1 if gemma else 0), NO_BIAS, False, n.eps if gemma else n.variance_epsilon

    def logits_of(self, parts: torch.Tensor, stream: torch.Tensor, answers: list[int]) -> torch.Tensor:
        """parts [..., P, D] of the stream [P, D] -> [..., P, answer]"""
        w, _, centres, eps = self._final_parts()
        if centres:
            parts, stream = parts - parts.mean(-1, keepdim=True), stream - stream.mean(-1, keepdim=True)
        scale = ((stream * stream).mean(-1, keepdim=True) + eps).sqrt()
        return parts / scale * w @ self.w_u[:, answers]

    def lens(self, kept: Source, mode: str) -> torch.Tensor:
        """[lens_layer, V] at the last position: the last norm and W_U of each block's input, and of the last one's output."""
        n = self.hf.n_layers
        stack = torch.stack([kept["resid_pre", l][-1] for l in range(n)] + [kept["resid_post", n - 1][-1]])
        if mode == "recompute":
            with widened(self.hf.dtype):
                logits = self.final(stack) @ self.w_u + self.b_u
            return self.cap * torch.tanh(logits / self.cap) if self.cap else logits
        _, _, centres, eps = self._final_parts()
        stack = stack - stack.mean(-1, keepdim=True) if centres else stack
        return stack / (stack[-1].square().mean() + eps).sqrt() @ self.w_u

    def _run(self, tokens: list[int]) -> tuple[torch.Tensor, Source, dict[int, torch.Tensor]]:
        """Logits; activations; what a norm behind a matrix multiplies each place of its output by."""
        kept: Source = {}
        hf, seen = self.hf, {}

        def keep(at: tuple[str, int]) -> Any:
            return lambda x: kept.__setitem__(at, x[0].clone())

        edits = {(what, layer): keep((what, layer)) for layer in range(hf.n_layers)
                 for what in ("resid_pre", "resid_post", "attn_out", "mlp_out", "z", "post")}
        embed = hf.model.get_submodule(EMBED[hf.kind]) if hf.kind in EMBED else hf.model.get_input_embeddings()
        hooks = [embed.register_forward_hook(lambda m, a, y: kept.__setitem__(("embed", 0), y[0].clone()))]
        for layer in range(hf.n_layers) if hf.kind in NORMS_AFTER else ():
            for what in ("attn_out", "mlp_out"):
                hooks.append(hf.added(what, layer).register_forward_hook(
                    lambda m, a, y, at=(what, layer): seen.__setitem__(at, y[0] / a[0][0])))
        logits = hf.run(torch.tensor([tokens]), edits)[0]
        for hook in hooks:
            hook.remove()
        return logits, kept, seen

    def tables(self, tokens: list[int], answers: list[int]) -> tuple[Tables, dict[str, float], torch.Tensor]:
        """logit_attrs [component, P, answer], head_attrs [layer, head, P, answer], neuron_attrs [layer, neuron, P, answer];
        and <mode>/lens_logit_diff [lens_layer, answer_other] at the last one; how far sums are off, in units of the RMS of what
        they should be; logits [P, V]"""
        hf, (logits, kept, factor) = self.hf, self._run(tokens)
        layers, stream = range(hf.n_layers), kept["resid_post", hf.n_layers - 1]
        first = kept["resid_pre", 0]
        positions = first - kept["embed", 0] if hf.kind in ("gpt2", "gpt_neo", "opt", "gpt_bigcode") else None
        parts = [first] if positions is None else [kept["embed", 0], positions]
        heads, neurons, off = [], [], {"attn_out": 0.0, "mlp_out": 0.0}
        for layer in layers:
            for what in ("attn_out", "mlp_out"):
                added = kept[what, layer] * self.times
                parts.append(added)
                module = hf.w_o(layer) if what == "attn_out" else hf.w_out(layer)
                w = module.weight if type(module).__name__ == "Conv1D" else module.weight.T  # [in, D]
                times = factor.get((what, layer), torch.ones((), dtype=added.dtype)) * self.times
                if what == "attn_out":
                    each = torch.einsum("phd,hdm->hpm", kept["z", layer], w.unflatten(0, (hf.heads, -1))) * times
                    heads.append(self.logits_of(each, stream, answers))
                else:
                    each = kept["post", layer].T[..., None] * w[:, None] * times
                    neurons.append(self.logits_of(each, stream, answers))
                bias = (NO_BIAS if module.bias is None else module.bias) * times
                off[what] = max(off[what], float((each.sum(0) + bias - added).abs().max() / added.square().mean().sqrt()))
        _, b, _, _ = self._final_parts()
        rest = (self.b_u + (b @ self.w_u if b.ndim else 0))[answers]
        attrs = self.logits_of(torch.stack(parts), stream, answers)
        attrs = torch.cat([attrs, rest.expand(1, *attrs.shape[1:])])
        total = attrs.sum(0)
        total = self.cap * torch.tanh(total / self.cap) if self.cap else total
        off["logit"] = float((total - logits[:, answers]).abs().max() / logits.square().mean().sqrt())
        out = {"logit_attrs": attrs, "head_attrs": torch.stack(heads), "neuron_attrs": torch.stack(neurons)}
        for mode in LENS_MODES:
            lens = self.lens(kept, mode)
            out[f"{mode}/lens_logit_diff"] = lens[:, answers[:1]] - lens[:, answers[1:]]
        return {name: x.numpy() for name, x in out.items()}, off, logits
