"""Errors, and the names that activations have: TransformerLens's short ones, and where each arises in a pass."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import numpy as np

SCHEMA = 2  # the newest schema version that this reader knows
Rows = int | slice | Sequence[int] | np.ndarray | None
Pos = str | int | slice | None


class H5LensError(Exception):
    """The file is not one that this reader can read."""


class H5LensWarning(UserWarning):
    """What was asked for is done, and may not be what is meant."""


class TooManyFiles(H5LensError):
    """The process may not open another file."""


class UnknownName(KeyError):
    """No such activation, table or column; the message gives the nearest names."""

    def __str__(self) -> str:
        return str(self.args[0])


_ATTN = {"q", "k", "v", "z", "rot_q", "rot_k", "result", "pattern", "attn_scores"}
_MLP = {"pre", "post", "mid", "pre_linear", "expert_weights", "expert_indices"}
_SHORT = {"attn": "pattern", "attn_logits": "attn_scores", "key": "k", "query": "q", "value": "v",
          "mlp_pre": "pre", "mlp_mid": "mid", "mlp_post": "post"}
_PART = {"a": "attn", "attention": "attn", "m": "mlp", "b": "", "block": "", "blocks": ""}


def act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """The full name of a shorthand, by the rules of TransformerLens's utils.get_act_name.

    ("resid_post", 5) is blocks.5.hook_resid_post, ("scale", 2, "ln1") is blocks.2.ln1.hook_scale,
    "k6" is blocks.6.attn.hook_k and "normalized" is ln_final.hook_normalized. Beyond those rules, the names of experts
    are known as the MLP's, and a name within a block, ("mlp.hook_post", 1), is the block's.
    """
    if layer is None and layer_type is None and ("." in name or name.startswith("hook_")):
        return name
    if layer is not None and layer_type is None and re.match(r"(.*\.)?hook_", name):
        return name if name.startswith("blocks.") else f"blocks.{layer}.{name}"
    compact = re.match(r"([a-z]+)(\d+)(.*)", name)
    if compact:
        name, layer, layer_type = compact.groups()
    name = _SHORT.get(name, name)
    if name in _ATTN:
        part = "attn"
    elif name in _MLP:
        part = "mlp"
    else:
        part = _PART.get(layer_type or "", layer_type or "")
    if not part and layer is None and name in ("scale", "normalized"):
        part = "ln_final"
    elif layer is None and name in ("scale", "normalized"):
        part = "ln_final." + part
    where = "" if layer is None else f"blocks.{layer}."
    return where + (part + "." if part else "") + "hook_" + name


# A pass through the model, and through a block of it.
_BEFORE, _AFTER = ("hook_embed", "hook_pos_embed"), ("ln_final.hook_scale", "ln_final.hook_normalized", "logits")
_BLOCK = ("hook_resid_pre", "ln1.hook_scale", "ln1.hook_normalized", "attn.hook_q", "attn.hook_k", "attn.hook_v",
          "attn.q_norm.hook_scale", "attn.q_norm.hook_normalized", "attn.k_norm.hook_scale", "attn.k_norm.hook_normalized",
          "attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z",
          "attn.hook_result", "ln1_post.hook_scale", "ln1_post.hook_normalized", "hook_attn_out", "hook_resid_mid",
          "hook_mlp_in", "ln2.hook_scale", "ln2.hook_normalized", "mlp.hook_expert_weights", "mlp.hook_expert_indices",
          "mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_mid",
          "mlp.ln.hook_scale", "mlp.ln.hook_normalized", "mlp.hook_post",
          "ln2_post.hook_scale", "ln2_post.hook_normalized", "hook_mlp_out", "hook_resid_post")


def _in_pass(name: str) -> tuple[int, int, int, str]:
    """Sorts names as they arise in a forward pass, and what is not known after what is."""
    def place(known: Sequence[str], part: str) -> int:
        return known.index(part) if part in known else len(known)

    if block := re.fullmatch(r"blocks\.(\d+)\.(.*)", name):
        return 1, int(block[1]), place(_BLOCK, block[2]), name
    return (0, 0, _BEFORE.index(name), name) if name in _BEFORE else (2, 0, place(_AFTER, name), name)


def _no_such(what: str, name: str, known: Iterable[str]) -> UnknownName:
    near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    hint = f"; the nearest: {', '.join(near)}" if near else ""
    return UnknownName(f"no {what} '{name}' in this file{hint}")
