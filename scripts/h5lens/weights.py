"""The file of a model's parameters that `h5lens weights` writes."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .datasets import _datasets, _dims
from .digests import _chunk_hash, _verify_file, Verification
from .files import _open_hdf5
from .names import _no_such, H5LensError, SCHEMA


def processing_done(asked: Mapping[str, bool], config: Mapping[str, Any]) -> dict[str, bool]:
    """The steps that were asked for, less those that the model's config says were not done."""
    return {step: on and config.get(step) is not False for step, on in asked.items()}


def open_weights(path: str | os.PathLike[str]) -> Weights:
    """Opens what `h5lens weights DIR -o W.h5` wrote."""
    return Weights(path)


class Weights(Mapping[str, h5py.Dataset]):
    """A model's parameters by TransformerLens's names, in its shapes: "blocks.0.attn.W_Q" [head, d_model, d_head].

    A value is h5py's dataset, of which only what is indexed is read: `w["embed.W_E"][:10]`, `w["unembed.b_U"][...]`.
    With grouped queries W_K and W_V have their own, fewer heads; the names that named_parameters has for them (_W_K)
    are understood. Close it, or use it in a `with`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path}: not there")
        try:
            self.file = _open_hdf5(self.path)
        except OSError as e:
            raise H5LensError(f"{self.path}: not an HDF5 file, or a damaged one ({e})") from e
        try:
            schema = self.file.attrs.get("h5lens_schema", 0)
            if "weights" not in self.file.attrs or "weights" not in self.file:
                raise H5LensError(f"{self.path}: not a file of weights" + (": open_run reads it" if schema else ""))
            if schema > SCHEMA:
                raise H5LensError(f"{self.path}: schema {schema}; this reader knows up to {SCHEMA}: "
                                  "take the reader that came with the h5lens that wrote it")
            self._data = {name: d for name, d in _datasets(self.file["weights"])}
            self.config: dict[str, Any] = json.loads(self.file.attrs["model_config"])
            self.processing = processing_done(json.loads(self.file.attrs["weights"]), self.config)
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    def __repr__(self) -> str:
        return f"<h5lens weights {self.path}: {len(self)} parameters{'' if self.file else ', closed'}>"

    @staticmethod
    def _name(name: str) -> str:
        return re.sub(r"\.attn\._(?=[Wb]_[KV]$)", ".attn.", name)

    def __getitem__(self, name: str) -> h5py.Dataset:
        if (known := self._name(name)) not in self._data:
            raise _no_such("parameter", name, self._data)
        return self._data[known]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._name(name) in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._data, key=_in_model))

    def __len__(self) -> int:
        return len(self._data)

    def attr(self, name: str) -> Any:
        """A root attribute: sha256_model, path_model, tensor_W_U, h5lens_version, …"""
        if name not in self.file.attrs:
            raise _no_such("attribute", name, self.file.attrs)
        return self.file.attrs[name]

    def dims(self, name: str) -> tuple[str, ...]:
        """The names of a parameter's dimensions: ("head", "d_model", "d_head")."""
        return _dims(self[name])

    def stack(self, name: str, dtype: Any = np.float32) -> np.ndarray:
        """A parameter of all layers [layer, …]: stack("attn.W_Q"), or "W_Q" alone, is TransformerLens's model.W_Q.

        As there, a key/value head stands once for each query head that reads it.
        """
        short = name if "." in name else ("mlp." if name.endswith(("_in", "_out", "_gate")) else "attn.") + name
        got = np.stack([self[f"blocks.{i}.{short}"][...] for i in range(self.config["n_layers"])]).astype(dtype)
        groups = self.config["n_heads"] // got.shape[1] if "kv_head" in self.dims(f"blocks.0.{short}") else 1
        return np.repeat(got, groups, axis=1) if groups > 1 else got

    def verify(self) -> Verification:
        """Recomputes the digest of every parameter and of the file's names and attributes ("/")."""
        found = Verification()
        _chunk_hash(self.file)  # can it be verified?
        _verify_file(self.file, "", found)
        return found

    # -- circuits, in float64

    def composition_scores(self, mode: str) -> np.ndarray:
        """float64 [layer, head, later layer, head]: TransformerLens's all_composition_scores(mode); zero where not later.

        ‖W_OV M‖ / (‖W_OV‖ ‖M‖) in Frobenius norms, where M is the later head's W_QK for "Q", W_QKᵀ for "K", W_OV for "V".
        """
        pair = {"Q": ("W_Q", "W_K"), "K": ("W_K", "W_Q"), "V": ("W_V", "W_O")}
        if mode not in pair:
            raise ValueError(f"mode is one of Q, K, V, not {mode!r}")
        reads, other = (self.stack(name, np.float64) for name in pair[mode])
        if mode == "V":
            other = np.swapaxes(other, -1, -2)
        # With the QR factors of what is outermost, W_V = Q R: ‖W_V X‖ = ‖R X‖, where d_head stands for d_model.
        left = np.linalg.qr(self.stack("W_V", np.float64), "r") @ self.stack("W_O", np.float64)
        right = reads @ np.swapaxes(np.linalg.qr(other, "r"), -1, -2)
        norms = [np.sqrt(np.square(x).sum((-1, -2))) for x in (left, right)]
        (n, heads, rank, _), columns = left.shape, right.shape[-1]
        out = np.zeros((n, heads, n, heads))
        for i, j in itertools.combinations(range(n), 2):
            both = np.concatenate(left[i]) @ np.concatenate(right[j], -1)
            squares = np.square(both).reshape(heads, rank, heads, columns).sum((1, 3))
            out[i, :, j] = np.sqrt(squares) / norms[0][i][:, None] / norms[1][j]
        return out

    def copying_scores(self, circuit: str = "OV") -> np.ndarray:
        """float64 [layer, head]: Σλ/Σ|λ| over the eigenvalues λ of a head's full circuit, from −1 to 1.

        "OV": W_E W_V W_O W_U, 1 where a token raises its own logit. "QK": W_E W_Q W_Kᵀ W_Eᵀ, 1 where a token attends
        to itself. The eigenvalues are those of the product the other way round, d_head × d_head, as TransformerLens's
        FactoredMatrix.eigenvalues has them; W_pos, biases and what rotary positions do are no part of it.
        """
        if circuit not in ("OV", "QK"):
            raise ValueError(f"circuit is OV or QK, not {circuit!r}")
        if circuit == "OV" and self["unembed.W_U"].shape[1] != self["embed.W_E"].shape[0]:
            raise H5LensError(f"{self.path}: copying_scores() needs a logit for each token (d_vocab_out = d_vocab), and the "
                              f"model has {self['unembed.W_U'].shape[1]} for {self['embed.W_E'].shape[0]}")
        inner = self._over_vocabulary("unembed.W_U" if circuit == "OV" else "embed.W_E")
        if circuit == "OV":
            first, last = self.stack("W_V", np.float64), self.stack("W_O", np.float64)
        else:
            first, last = self.stack("W_Q", np.float64), np.swapaxes(self.stack("W_K", np.float64), -1, -2)
        values = np.linalg.eigvals(last @ (inner @ first))
        return values.sum(-1).real / np.abs(values).sum(-1)

    def _over_vocabulary(self, name: str) -> np.ndarray:
        """float64 [d_model, d_model]: W_U W_E or W_Eᵀ W_E, some tokens at a time."""
        d, embed = self[name], self["embed.W_E"]
        total = np.zeros((embed.shape[1],) * 2)
        for a in range(0, embed.shape[0], 8192):
            part = embed[a:a + 8192].astype(np.float64)
            other = d[:, a:a + 8192].astype(np.float64) if name == "unembed.W_U" else part.T
            total += other @ part
        return total


_IN_BLOCK = ("ln1.w", "ln1.b", "ln1_post.w", "ln2.w", "ln2.b", "ln2_post.w", "attn.W_Q", "attn.W_K", "attn.W_V",
             "attn.q_norm.w", "attn.k_norm.w", "attn.W_O", "attn.b_Q", "attn.b_K", "attn.b_V", "attn.b_O", "mlp.W_gate",
             "mlp.b_gate", "mlp.W_in", "mlp.b_in", "mlp.W_out", "mlp.b_out", "mlp.ln.w", "mlp.ln.b")


_IN_EXPERT = ("W_in.weight", "W_out.weight", "W_gate.weight")


def _in_block(part: str) -> int:
    if expert := re.fullmatch(r"mlp\.experts\.(\d+)\.(.*)", part):
        return len(_IN_BLOCK) + len(_IN_EXPERT) * int(expert[1]) + _IN_EXPERT.index(expert[2])
    return _IN_BLOCK.index(part) if part in _IN_BLOCK else 1 << 30  # behind the experts


def _in_model(name: str) -> tuple[int, int, int, str]:
    """Sorts parameters as `h5lens weights` lists them."""
    if block := re.fullmatch(r"blocks\.(\d+)\.(.*)", name):
        return 1, int(block[1]), _in_block(block[2]), name
    before = ("embed.W_E", "pos_embed.W_pos")
    after = ("ln_final.w", "ln_final.b", "unembed.W_U", "unembed.b_U")
    return (0, 0, before.index(name), name) if name in before else \
        (2, 0, after.index(name) if name in after else len(after), name)
