"""A run's file as it is opened: groups, names, shards, prompts.

In: a path. Out: `RunFile`, on which run_cache.py, run_stacks.py and run.py build.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from .chunks import Part
from .datasets import _address, _datasets, _dims, _Group, _index, _is_string, _PaddedDataset, _read, _ShardedDataset
from .files import _allow_open_files, _open_hdf5, _Shard, _Shards
from .names import _in_pass, _no_such, act_name, H5LensError, Pos, Rows, SCHEMA, UnknownName
from .weights import processing_done


class RunFile:
    """An output file: its groups, names and shards."""

    _OPEN = ("file", "prompts", "results", "patch", "ablate", "steer", "knockout", "paths", "columns", "_cache")  # there until close()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._tree: Any = None
        self._parts: dict[tuple[int, int], Part] = {}  # by the file's number and the id of an activation's dataset
        self._axes: dict[int, tuple[str, ...]] = {}  # its dimensions, which h5py takes long to tell
        self._pieces: dict[tuple[Path, bool], dict[int, bytes]] = {}  # by where, and whether the user gave it
        if not self.path.exists():
            beside = self.path.parent.iterdir() if self.path.parent.is_dir() else ()
            part = next((p for p in beside if p.name.startswith(self.path.name + ".part")), None)
            hint = f" (an unfinished {part.name} is: run the same command again)" if part else ""
            raise FileNotFoundError(f"{self.path}: not there{hint}")
        try:
            self.file = _open_hdf5(self.path)
        except OSError as e:
            if not os.access(self.path, os.R_OK):
                raise PermissionError(f"{self.path}: cannot be read") from e
            raise H5LensError(f"{self.path}: not an HDF5 file, or a damaged one ({e})") from e
        try:
            self._check_schema()
            self._shards = self._check_shards()
            self.prompts = self._group("prompts", "prompt array")
            self.results = self._group("results", "result table")
            self.patch = self._group("results/patch", "grid of patching", "the run patched nothing (patch.grids)")
            self.ablate = self._group("results/ablate", "grid of ablation",
                                      "the run ablated nothing (ablate.grids, ablate.sets)")
            self.steer = self._group("results/steer", "table of steering", "the run was not steered (steer.vector)")
            self.knockout = self._group("results/knockout", "table of knockout",
                                        "the run cut no attention (knockout.from, knockout.to)")
            self.paths = self._group("results/path", "table of path patching", "the run patched no paths (path.receivers)")
            self.columns = self._group("prompts/columns", "CSV column")
            self.lengths: np.ndarray = _read(self.prompts.dataset("length"))
            self._first_token = _read(self.prompts.dataset("first_token")) if "first_token" in self.prompts else None
            self._cache = {k: self._wrap(d) for k, d in _datasets(self.file.get("cache"))}
            self._cache |= {k: self._padded(self._wrap(d)) for k, d in _datasets(self.file.get("tokens"))}
        except BaseException:
            self.file.close()
            raise

    def _wrap(self, d: h5py.Dataset) -> h5py.Dataset:
        if not self._shards or not d.is_virtual:
            return d
        if str(d.name).startswith("/tokens/"):
            return _ShardedDataset(d, self._shards, np.append(self._first_of_prompt()[self._shards.first], d.shape[0]))
        return _ShardedDataset(d, self._shards, np.append(self._shards.first, self._shards.n_rows))

    def _first_of_prompt(self) -> np.ndarray:
        if self._first_token is None:
            raise H5LensError(f"{self.path}: has /tokens and no /prompts/first_token")
        return self._first_token

    def _padded(self, flat: h5py.Dataset) -> _PaddedDataset:
        """As cache.layout: padded would have stored it."""
        first, by_slot = self._first_of_prompt(), "slot_pos" in self.prompts

        def places(rows: np.ndarray) -> np.ndarray:
            there = self.positions(rows) >= 0
            return np.where(there, first[rows][:, None] + np.cumsum(there, 1) - 1, -1)

        n_slots = self.prompts.dataset("slot_pos" if by_slot else "tokens").shape[1]
        return _PaddedDataset(flat, (len(self), n_slots), "slot" if by_slot else "pos", places)

    def _group(self, path: str, what: str, absent: str = "") -> _Group:
        items = (self.file.get(path) or {}).items()
        return _Group({k: self._wrap(d) for k, d in items if isinstance(d, h5py.Dataset)}, what, absent)

    @property
    def shards(self) -> list[Path]:
        """The files that the activations are in, when the run was written in shards."""
        return [s.path for s in self._shards.all] if self._shards else []

    def _check_schema(self) -> None:
        schema = self.file.attrs.get("h5lens_schema")
        if schema is None or np.ndim(schema) or not isinstance(schema, (int, np.integer)):
            raise H5LensError(f"{self.path}: not a file of h5lens (no attribute h5lens_schema)")
        if schema > SCHEMA:
            raise H5LensError(f"{self.path}: schema {schema}; this reader knows up to {SCHEMA}: "
                              "take the reader that came with the h5lens that wrote it")
        if schema < 1:
            raise H5LensError(f"{self.path}: schema {schema} does not exist")
        if "weights" in self.file.attrs:
            raise H5LensError(f"{self.path}: a file of weights: open_weights reads it")

    def _check_shards(self) -> _Shards | None:
        """Looks at each of them, so that one which is missing is told now and not in the middle of the work."""
        if "shards" not in self.file:
            if any(d.is_virtual for _, d in _datasets(self.file)):
                raise H5LensError(f"{self.path}: its data is in other files, and it does not say in which")
            return None
        try:
            listed = self.file["shards"]
            names = [str(name) for name in listed["name"].asstr()[...]]
            digests = [str(digest) for digest in listed["sha256"].asstr()[...]]
            sizes, first, n = (listed[k][...].astype(np.int64) for k in ("size", "first_row", "n_rows"))
            if not np.array_equal(np.cumsum(n) - n, first) or (n <= 0).any():
                raise ValueError("the rows of the shards do not follow each other")
            shards = [_Shard(self._shard_path(name), name, *rest)
                      for name, *rest in zip(names, sizes.tolist(), digests, first.tolist(), n.tolist(), strict=True)]
        except (KeyError, AttributeError, OSError, RuntimeError, ValueError, TypeError, MemoryError) as e:
            raise H5LensError(f"{self.path}: its list of shards cannot be read ({e})") from e
        _allow_open_files(len(shards) + 64)  # for whoever reads `file`, which opens them all
        wrong = [f"{s.name} {what}" for s in shards if (what := s.fault())]
        if wrong:
            more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise H5LensError(f"{self.path}: its activations are in {len(names)} shards, and these cannot be "
                              f"used: {'; '.join(wrong[:5])}{more}. Put them beside the file (after a "
                              "rename of both: `h5lens merge`), or let `h5lens run … --repair` compute them again")
        return _Shards(self.path, shards)

    def _shard_path(self, name: str) -> Path:
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or not parts:
            raise H5LensError(f"{self.path}: a shard cannot be called '{name}'")
        beside = self.path.parent / name
        return beside if beside.exists() else self.path.resolve().parent / name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._tree is not None:
            self._tree.close()
            self._tree = None
        if "file" in self.__dict__:
            if self._shards:
                self._shards.close()
            self.file.close()
        for name in self._OPEN:
            self.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        """What close() took away."""
        if name in self._OPEN:
            raise ValueError(f"{self.path}: the run is closed")
        raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")

    def __repr__(self) -> str:
        if "file" not in self.__dict__:
            return f"<h5lens run {self.path}, closed>"
        grids = "".join(f", {what} {', '.join(group)}" for what, group in
                        ((name, getattr(self, name)) for name in ("patch", "ablate", "steer", "knockout", "paths")) if group)
        return (f"<h5lens run {self.path}: {len(self)} prompts, {len(self._cache)} activations, "
                f"results {', '.join(self.results)}{grids}>")

    def __len__(self) -> int:
        """The number of prompts."""
        return len(self.lengths)

    def attr(self, name: str) -> Any:
        """A root attribute: h5lens_version, sha256_model, cpu_level, blas, experiment_source, …"""
        if name not in self.file.attrs:
            raise _no_such("attribute", name, self.file.attrs)
        value = self.file.attrs[name]
        return value.decode() if isinstance(value, bytes) else value

    @property
    def experiment(self) -> dict[str, Any]:
        """The experiment with every default filled in."""
        return json.loads(self.attr("experiment"))

    @property
    def model_config(self) -> dict[str, Any]:
        """The model's config, with the key names of TransformerLens's HookedTransformerConfig and some of our own.
        What that takes is `transformer_lens_config(run)`."""
        return json.loads(self.attr("model_config"))

    @property
    def processing(self) -> dict[str, bool]:
        """The weight processing that was done, as load_and_process_state_dict takes it: what the experiment asks for,
        but for W_U's centring where logits have a soft cap, and for fold_ln where MLPs are experts."""
        return processing_done(self.experiment["weights"], self.model_config)

    @property
    def lens_layers(self) -> list[str]:
        """The labels of the dimension lens_layer: 0_pre, 1_pre, …, final_post; with lens_mid 0_pre, 0_mid, 1_pre, …"""
        return self.labels("lens_layer")

    def labels(self, dim: str) -> list[str]:
        """The labels of a dimension: of answer the answers' columns, of set the names of ablate.sets, of scale
        the numbers of steer.scale. Without labels: []."""
        d = self.file.get(dim)
        return list(_read(d)) if isinstance(d, h5py.Dataset) and _is_string(d) else []

    @property
    def hooks(self) -> list[str]:
        """The names of the stored activations, in the order in which they arise, aliases included."""
        return sorted(self._cache, key=_in_pass)

    @property
    def aliases(self) -> dict[str, str]:
        """Names that stand for the same data as another name: alias → the first name of it."""
        first: dict[int, str] = {}
        return {h: name for h in self.hooks
                if (name := first.setdefault(_address(self._cache[h]), h)) != h}

    def name(self, name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
        """The full name of a stored activation. A negative layer counts from the last one."""
        for what, value, kinds in (("name", name, str), ("layer", layer, (int, np.integer, str, type(None))),
                                   ("layer_type", layer_type, (str, type(None)))):
            if not isinstance(value, kinds):
                raise TypeError(f"{what} cannot be {value!r}; which rows to read is said by name: rows={value!r}")
        if name in self._cache and layer is None:
            return name
        n = int(self.model_config["n_layers"])
        if isinstance(layer, (int, np.integer)) and not -n <= layer < n:
            raise UnknownName(f"no layer {layer}: the model has {n} layers, 0 to {n - 1} (or -{n} to -1)")
        if isinstance(layer, (int, np.integer)) and layer < 0:
            layer = n + int(layer)
        full = act_name(name, layer, layer_type)
        if full in self._cache:
            return full
        if layer is None:
            there = [i for i in range(n) if act_name(name, i, layer_type) in self._cache]
            if there:
                raise UnknownName(f"'{name}' is an activation of each layer: ('{name}', {there[0]}), which is "
                                  f"'{act_name(name, there[0], layer_type)}'; layers here: "
                                  f"{', '.join(map(str, there))}")
        raise _no_such("activation", full, self._cache)

    def dataset(self, name: str, layer: int | str | None = None,
                layer_type: str | None = None) -> h5py.Dataset:
        """The h5py dataset of an activation: shape, attributes, partial reads."""
        return self._cache[self.name(name, layer, layer_type)]

    def dims(self, name: str, layer: int | str | None = None,
             layer_type: str | None = None) -> tuple[str, ...]:
        """The names of an activation's dimensions: ("prompt", "pos", "head", "d_head")."""
        return _dims(self.dataset(name, layer, layer_type))

    def tokens(self, rows: Rows = None) -> np.ndarray:
        """Token ids [row, pos], the beginning-of-sequence token included; -1 past the end."""
        return _read(self.prompts.dataset("tokens"), rows)

    def corrupted_tokens(self, rows: Rows = None) -> np.ndarray:
        """The corrupted prompts' token ids as tokens() has the prompts'; with data.corrupted only."""
        return _read(self.prompts.dataset("corrupted_tokens"), rows)

    def mask(self, rows: Rows = None) -> np.ndarray:
        """bool [row, pos]: True where there is a token."""
        n_pos = self.prompts.dataset("tokens").shape[1]
        lengths = self.lengths[_index(rows, len(self))]
        got = np.arange(n_pos) < lengths[:, None]
        return got[0] if isinstance(rows, (int, np.integer)) else got

    def positions(self, rows: Rows = None, pos: Pos = None) -> np.ndarray:
        """int [row, entry]: the token position of each entry of the activations' second dimension.

        -1 where the prompt has none. The same as 0, 1, 2, … unless the experiment chose positions, or pos
        does: then of each entry of `activation_cache(rows, pos=pos)`.
        """
        if pos is not None:
            index = _index(rows, len(self))
            slot = self._slots(index, pos)
            got = np.where(slot < 0, -1, np.take_along_axis(self.positions(index), np.maximum(slot, 0), 1))
            return got[0] if isinstance(rows, (int, np.integer)) else got
        if "slot_pos" in self.prompts:
            return _read(self.prompts.dataset("slot_pos"), rows)
        mask = self.mask(rows)
        return np.where(mask, np.arange(mask.shape[-1]), -1)
