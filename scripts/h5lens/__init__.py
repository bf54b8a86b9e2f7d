"""Reads the HDF5 files that h5lens writes.

    import h5lens
    with h5lens.open_run("out.h5") as run:
        run.cache("resid_post", 5)              # [prompt, pos, d_model]
        run.cache("blocks.5.attn.hook_pattern", rows=slice(0, 8))
        run.by_token("resid_post", 5)           # [token, d_model], no padding; run.token_places(): row and position of each
        run.cache("resid_post", 5, pos="read")  # [prompt, d_model]: at the read position
        run.batches("resid_post", 4096, layer=5)  # all tokens, shuffled; h5lens.torch has it for a DataLoader
        run.results["logit_diff"]               # [prompt, answer - 1]
        run.to_dataframe()                      # tables and the CSV's columns, for pandas
        run.patch["resid_pre"]                  # [prompt, layer, pos, answer - 1]: /results/patch
        run.ablate["sets"]                      # [prompt, set, answer - 1]: /results/ablate; run.labels("set")
        run.steer["logit_diff"]                 # [prompt, scale, answer - 1]: /results/steer; run.labels("scale")
        run.knockout["top_tokens"]              # [prompt, k]: /results/knockout
        run.paths["logit_diff"]                 # [prompt, layer, head, answer_other]: /results/path
        run.tree["/results"].to_dataset()       # xarray, read when it is used
        run.activation_cache([0, 1])            # a dict for TransformerLens's ActivationCache
        run.decompose_resid([0, 1])             # and its functions, in NumPy: [component, prompt, pos, d_model]
    with h5lens.open_weights("w.h5") as w:
        w["blocks.0.attn.W_Q"][3]               # what `h5lens weights DIR -o w.h5` wrote

Importing needs NumPy and h5py only; xarray is for `tree` and `Stack.to_xarray`, pandas for `to_dataframe`, torch for
`activation_cache(torch=True)` and h5lens.torch, xxhash for `verify` of files whose chunks are hashed with it.

Conventions of the file. Prompts differ in length and nothing was computed past a prompt's end: float
arrays hold NaN there, `tokens` holds -1. `run.lengths` and `run.mask()` say where the data is. Attention
scores that the causal mask (or a local window) removes are -inf. Ranks count from zero; -1 stands for a
row whose logits were not finite. Arrays keep the type they were stored in (float16 or float32).
A run with cache.layout: ragged is stored without padding, /tokens/<hook name> [token, …], and reads the same.

Interventions. A grid of `run.patch` has a cell for each place of its axes (`run.patch.dims("resid_pre")`): what became of
the answers when the activation there was replaced; NaN past a prompt's end and where patch.layers, patch.heads or
patch.positions did not ask. Beside the grids are both runs, corrupted_logit_diff and clean_logit_diff (or another
patch.metric), and with patch.normalize <grid>_normalized: (x - corrupted) / (clean - corrupted), NaN where those are equal.
A grid of `run.ablate` is the clean run, whose own logit_diff is in `run.results`, with heads, attention or MLPs replaced.
`run.steer` and `run.knockout` hold tables of the read position, as `run.results` does of the run without: with a vector
added, times each of steer.scale, and with attention cut.

A run in shards. HDF5 shows the activations of all shards as one virtual dataset, opens every shard to read it,
and gives NaN, without an error, for a shard that it cannot open (it is missing, or the process has reached its
limit of open files). So nothing here reads through it: each shard is opened in turn, and one that cannot be is
an error. That holds for every array that comes from here, but for `run.file`, which is h5py's own.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import importlib
import itertools
import json
import os
import re
import sys
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from .chunks import Chunks, Part, empty

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

__version__ = "0.5.0"  # the program's
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


def open_run(path: str | os.PathLike[str]) -> Run:
    """Opens a finished output file of h5lens for reading."""
    return Run(path)


# --- names --------------------------------------------------------------------

_ATTN = {"q", "k", "v", "z", "rot_q", "rot_k", "result", "pattern", "attn_scores"}
_MLP = {"pre", "post", "mid", "pre_linear"}
_SHORT = {"attn": "pattern", "attn_logits": "attn_scores", "key": "k", "query": "q", "value": "v",
          "mlp_pre": "pre", "mlp_mid": "mid", "mlp_post": "post"}
_PART = {"a": "attn", "attention": "attn", "m": "mlp", "b": "", "block": "", "blocks": ""}


def act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """The full name of a shorthand, by the rules of TransformerLens's utils.get_act_name.

    ("resid_post", 5) is blocks.5.hook_resid_post, ("scale", 2, "ln1") is blocks.2.ln1.hook_scale,
    "k6" is blocks.6.attn.hook_k and "normalized" is ln_final.hook_normalized.
    """
    if layer is None and layer_type is None and ("." in name or name.startswith("hook_")):
        return name
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
          "attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z",
          "attn.hook_result", "hook_attn_out", "hook_resid_mid", "hook_mlp_in", "ln2.hook_scale",
          "ln2.hook_normalized", "mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post", "hook_mlp_out",
          "hook_resid_post")


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


def _is_string(d: h5py.Dataset) -> bool:
    return h5py.check_string_dtype(d.dtype) is not None


def _dims(d: h5py.Dataset) -> tuple[str, ...]:
    """The names of the attached dimension scales ("" where there is none)."""
    if isinstance(d, _PaddedDataset):
        return d.names
    if d.is_scale:
        return (str(d.name).rsplit("/", 1)[-1],)
    return tuple(str(dim[0].name).rsplit("/", 1)[-1] if len(dim) else "" for dim in d.dims)


def _token_axis(dims: tuple[str, ...]) -> int:
    return next(i for i, name in enumerate(dims) if name in ("pos", "slot", "query"))


def _address(d: h5py.Dataset) -> int:
    """Equal for two names of one dataset (a hook and its alias)."""
    return int(h5py.h5o.get_info(d.id).addr)


# --- files and shards -----------------------------------------------------------

_MAX_OPEN = 64  # shards that stay open between two reads, of all runs in the process
_lock = threading.RLock()  # held while a shard is read, so that nobody closes it
_open_shards: OrderedDict[tuple[int, int], h5py.File] = OrderedDict()  # by run and number; the last used last


def _after_fork() -> None:
    """In the child: a thread that held the lock is not there to let it go."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
_run_numbers = itertools.count()


def _open_files() -> int:
    """How many files the whole process has open."""
    for where in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(where))
        except OSError as e:
            if e.errno == errno.EMFILE:  # not even this one
                return _limit()[0]
    return 0


def _limit() -> tuple[int, int]:
    """The process's limit of open files: the soft one, and what it can be raised to."""
    if not resource:
        return sys.maxsize, sys.maxsize
    soft, hard = (n if n != resource.RLIM_INFINITY else sys.maxsize for n in resource.getrlimit(resource.RLIMIT_NOFILE))
    return soft, hard


def _allow_open_files(n: int) -> None:
    """Raises the process's soft limit so that n more files can be opened, as far as the hard one allows."""
    (soft, hard), wanted = _limit(), _open_files() + n
    if resource and soft < min(wanted, hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _close_shards(run: int | None = None) -> None:
    """Those of one run, or all."""
    with _lock:
        for key in [k for k in _open_shards if run in (None, k[0])]:
            _open_shards.pop(key).close()


def _open_hdf5(path: Path) -> h5py.File:
    """For reading. Where the process may open no more files, after making room for it."""
    for make_room in (lambda: _allow_open_files(256), _close_shards, None):
        try:
            return h5py.File(path, "r")
        except OSError as e:
            if e.errno not in (errno.EMFILE, errno.ENFILE):
                if not h5py.is_hdf5(path):
                    raise
                # Some cluster file systems refuse locks. Not the first choice: within one process, every
                # open handle of a file must have the same locking.
                return h5py.File(path, "r", locking=False)
            if make_room is None:
                raise TooManyFiles(f"{path}: cannot be opened: this process has {_open_files()} files open and may "
                                   "open no more (`ulimit -n`)") from e
            make_room()
    raise AssertionError


@dataclass
class _Shard:
    """One file of a run in shards: which rows it has, and by what it is known."""

    path: Path
    name: str
    size: int
    digest: str
    first: int
    n: int

    def open(self) -> h5py.File:
        try:
            if (found := self.path.stat().st_size) != self.size:
                raise H5LensError(f"has {found} bytes, not {self.size}")
            file = _open_hdf5(self.path)
        except FileNotFoundError as e:
            raise H5LensError("is missing") from e
        except OSError as e:
            raise H5LensError(f"cannot be opened ({e})") from e
        try:
            own = file.attrs.get("sha256")
        except (OSError, RuntimeError, ValueError) as e:
            own = f"unreadable: {e}"
        if own != self.digest:
            file.close()
            raise H5LensError("is another file than the one that belongs here")
        return file

    def fault(self) -> str | None:
        """What is wrong with it, as far as can be seen without reading its data."""
        try:
            self.open().close()
        except TooManyFiles:
            raise
        except H5LensError as e:
            return str(e)
        return None


class _Shards:
    """The shards of a run. Few are open at a time, and the caller holds the lock while it reads one."""

    def __init__(self, path: Path, shards: list[_Shard]) -> None:
        self.path, self.all, self._run = path, shards, next(_run_numbers)
        self.close = weakref.finalize(self, _close_shards, self._run)  # also of a run that nobody closed
        self.first = np.array([s.first for s in shards])
        self.n_rows = sum(s.n for s in shards)

    def open(self, i: int) -> h5py.File:
        key = (self._run, i)
        if key not in _open_shards:
            try:
                file = self.all[i].open()
            except TooManyFiles:
                raise
            except H5LensError as e:
                raise H5LensError(f"{self.path}: its shard {self.all[i].name} {e}") from e
            while len(_open_shards) >= min(_MAX_OPEN, _limit()[0] // 4):  # the rest is for others
                _open_shards.popitem(last=False)[1].close()
            _open_shards[key] = file
        _open_shards.move_to_end(key)
        return _open_shards[key]

    def dataset(self, i: int, like: h5py.Dataset, n_rows: int) -> h5py.Dataset:
        """A shard's part of a dataset: its own rows; the other dimensions may be shorter."""
        d = self.open(i).get(like.name)
        if not isinstance(d, h5py.Dataset) or d.dtype != like.dtype or d.ndim != like.ndim \
                or d.shape[0] != n_rows or any(n > m for n, m in zip(d.shape[1:], like.shape[1:])):
            raise H5LensError(f"{self.path}: {like.name} in its shard {self.all[i].name} is not what belongs here")
        return d


class _Composed(h5py.Dataset):
    """A dataset that puts together by itself what is read of it."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        if copy is False:
            raise ValueError("reading a dataset makes a copy")
        return self.__getitem__(..., dtype)

    def read_direct(self, dest: np.ndarray, source_sel: Any = None, dest_sel: Any = None) -> None:
        dest[... if dest_sel is None else dest_sel] = self[... if source_sel is None else source_sel]


class _ShardedDataset(_Composed):
    """A dataset whose rows are in the shards: h5py's, but each read opens the shards that it needs itself."""

    def __init__(self, d: h5py.Dataset, shards: _Shards, first: np.ndarray) -> None:
        """first: the first row, or token, of each shard, and how many there are of all."""
        super().__init__(d.id)
        self.shards, self.first = shards, first
        if d.shape[0] != first[-1]:
            raise H5LensError(f"{shards.path}: {d.name} has {d.shape[0]} rows, the shards {first[-1]}")

    def __getitem__(self, args: Any, new_dtype: Any = None) -> Any:
        picks = _picks(args, self.shape)
        at = [np.atleast_1d(p) for p in picks]
        out = np.full([len(a) for a in at], self.fillvalue, self.dtype if new_dtype is None else new_dtype)
        owner = np.searchsorted(self.first, at[0], side="right") - 1
        for i in np.unique(owner) if out.size else ():
            here = np.flatnonzero(owner == i)
            with _lock:
                self._read_shard(int(i), here, at, out)
        return out.reshape([len(p) for p in picks if p.ndim])[()]

    def _read_shard(self, i: int, here: np.ndarray, at: list[np.ndarray], out: np.ndarray) -> None:
        """Fills the rows `here` of out; past the shard's own extent out keeps its fill values, as HDF5 has it."""
        d = self.shards.dataset(i, self, int(self.first[i + 1] - self.first[i]))
        rows = at[0][here] - self.first[i]
        there = [np.flatnonzero(a < n) for a, n in zip(at[1:], d.shape[1:])]
        if not all(t.size for t in there):
            return
        wanted = [a[t] for a, t in zip(at[1:], there)]
        hull = [slice(int(w.min()), int(w.max()) + 1) for w in wanted]
        for first, past in _runs(np.unique(rows)):
            take = np.flatnonzero((rows >= first) & (rows < past))
            try:
                block = d[(slice(first, past), *hull)]
            except (OSError, RuntimeError) as e:
                raise H5LensError(f"{self.shards.path}: its shard {self.shards.all[i].name}: {d.name} cannot be read "
                                  f"({e})") from e
            inside = [rows[take] - first, *(w - h.start for w, h in zip(wanted, hull))]
            out[_cross([here[take], *there])] = block[_cross(inside)]


_AT_ONCE = 64 << 20  # bytes that are read at once, of what is put together
_GAP = 64  # tokens that are read though nobody asked, rather than reading twice


class _PaddedDataset(_Composed):
    """A dataset without padding, [token, …], as one with it, [prompt, pos, …]: NaN where a prompt has no token.

    places: of some prompts, the token at each of their positions, -1 for none, int [prompt, n_slots].
    """

    def __init__(self, flat: h5py.Dataset, shape: tuple[int, int], name: str,
                 places: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(flat.id)
        self.flat, self._places = flat, places
        self._padded, self._name = (*shape, *flat.shape[1:]), name

    @property
    def shape(self) -> tuple[int, ...]:
        return self._padded

    maxshape = shape

    @property
    def ndim(self) -> int:
        return len(self._padded)

    @property
    def size(self) -> int:
        return int(np.prod(self._padded))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def names(self) -> tuple[str, ...]:
        return ("prompt", self._name, *_dims(self.flat)[1:])

    def __getitem__(self, args: Any, new_dtype: Any = None) -> Any:
        picks = _picks(args, self.shape)
        rows, slots, *inner = [np.atleast_1d(p) for p in picks]
        out = np.full([len(rows), len(slots), *map(len, inner)], np.nan, self.dtype if new_dtype is None else new_dtype)
        token = self._places(rows)[:, slots] if out.size else np.empty((0, 0), int)
        row, slot = np.nonzero(token >= 0)
        token = token[row, slot]
        order = np.argsort(token, kind="stable")
        for a, b in self._blocks(token[order]):
            here = order[a:b]
            out[row[here], slot[here]] = self._tokens(token[here], inner)
        return out.reshape([len(p) for p in picks if p.ndim])[()]

    def _blocks(self, token: np.ndarray) -> Iterator[tuple[int, int]]:
        """Cuts ascending tokens where many are left out, and before more than _AT_ONCE would be read."""
        most = max(1, _AT_ONCE // max(1, int(np.prod(self._padded[2:])) * self.dtype.itemsize))
        ends = [*(np.flatnonzero(np.diff(token) > _GAP) + 1), len(token)] if len(token) else []
        a = 0
        for end in ends:
            while a < end:
                b = min(int(end), int(np.searchsorted(token, token[a] + most)))
                yield a, b
                a = b

    def _tokens(self, token: np.ndarray, inner: list[np.ndarray]) -> np.ndarray:
        """Of ascending tokens, what inner picks of the other dimensions."""
        hull = [slice(int(w.min()), int(w.max()) + 1) for w in inner]
        got = self.flat[(slice(int(token[0]), int(token[-1]) + 1), *hull)]
        if len(token) != len(got) or (np.diff(token) != 1).any():
            got = got[token - token[0]]
        for axis, (w, h) in enumerate(zip(inner, hull), 1):
            if len(w) != got.shape[axis] or (np.diff(w) != 1).any():
                got = np.take(got, w - h.start, axis)
        return got


def _flat(d: h5py.Dataset) -> h5py.Dataset:
    """As it is in the file: without padding, if that is so."""
    return d.flat if isinstance(d, _PaddedDataset) else d


def _picks(args: Any, shape: tuple[int, ...]) -> list[np.ndarray]:
    """h5py's ways to index, as numbers in each dimension: an array, or one alone, which drops the dimension."""
    args = args if isinstance(args, tuple) else (args,)
    dots = [i for i, a in enumerate(args) if a is Ellipsis]
    missing = len(shape) - len(args) + len(dots)
    if missing < 0 or len(dots) > 1:
        raise IndexError(f"{len(args)} indices for {len(shape)} dimensions")
    i = dots[0] if dots else len(args)
    args = (*args[:i], *[slice(None)] * missing, *args[i + len(dots):])
    picks = [np.arange(n)[a] for a, n in zip(args, shape)]
    if any(p.ndim > 1 for p in picks):
        raise IndexError("one number, slice, list or mask for each dimension")
    return picks


def _cross(index: list[np.ndarray]) -> tuple[Any, ...]:
    """Selects every combination of the indices; by slices where they are consecutive, which copies fast."""
    if all(len(i) == i[-1] - i[0] + 1 and (np.diff(i) == 1).all() for i in index):
        return tuple(slice(int(i[0]), int(i[-1]) + 1) for i in index)
    return np.ix_(*index)


# --- reading ------------------------------------------------------------------

def _runs(index: np.ndarray) -> Iterator[tuple[int, int]]:
    """The stretches of consecutive numbers in an ascending index: first, past the last."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    for part in np.split(index, breaks):
        if part.size:
            yield int(part[0]), int(part[-1]) + 1


def _spans(slot: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """Of each row of [row, entry], the stretches of consecutive numbers: entry, first number, past the last; -1 is none."""
    n = (slot >= 0).sum(1)
    if np.array_equal(slot, np.where(np.arange(slot.shape[1]) < n[:, None], np.arange(slot.shape[1]), -1)):
        return [[(0, 0, m)] if m else [] for m in n.tolist()]
    out = []
    for row in slot:
        entries = np.flatnonzero(row >= 0)
        breaks = np.flatnonzero((np.diff(entries) != 1) | (np.diff(row[entries]) != 1)) + 1
        out.append([(int(e[0]), int(row[e[0]]), int(row[e[-1]]) + 1) for e in np.split(entries, breaks) if e.size])
    return out


def _read(d: h5py.Dataset, rows: Rows = None) -> Any:
    """Rows of a dataset, any order, repeats allowed; only those rows are read."""
    view = d.asstr() if _is_string(d) else d
    if rows is None or isinstance(rows, slice) and rows.step in (None, 1):
        return np.asarray(view[rows if rows is not None else ...])
    if isinstance(rows, (int, np.integer)):
        return view[int(_index(rows, d.shape[0])[0])]
    if isinstance(d, _Composed):
        return d[_index(rows, d.shape[0])]
    wanted, back = np.unique(_index(rows, d.shape[0]), return_inverse=True)
    parts = [np.asarray(view[a:b]) for a, b in _runs(wanted)]
    if not parts:
        return np.asarray(view[0:0])
    got = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return got if np.array_equal(back, np.arange(len(got))) else got[back]


def _index(rows: Rows, n: int) -> np.ndarray:
    """Any way to say which rows, as an array of numbers in [0, n)."""
    if rows is None or isinstance(rows, slice):
        return np.arange(n)[rows if rows is not None else slice(None)]
    index = np.atleast_1d(np.asarray(rows))
    if index.dtype == bool:
        if index.shape != (n,):
            raise IndexError(f"a mask of shape {index.shape} for {n} rows")
        return np.flatnonzero(index)
    if index.size == 0:
        return np.empty(0, dtype=np.int64)
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise IndexError("rows are whole numbers, a slice or a boolean mask")
    index = np.where(index < 0, index + n, index)
    if index.min() < 0 or index.max() >= n:
        raise IndexError(f"row {int(index.max())} of {n}")
    return index


class _Group(Mapping[str, np.ndarray]):
    """A group's datasets as NumPy arrays, each read when it is asked for."""

    def __init__(self, data: dict[str, h5py.Dataset], what: str, absent: str = "") -> None:
        self._data, self._what, self._absent = data, what, absent  # absent: why there may be none at all

    def dataset(self, name: str) -> h5py.Dataset:
        """The h5py dataset: shape, attributes, partial reads."""
        if name not in self._data:
            if not self._data and self._absent:
                raise UnknownName(f"no {self._what} '{name}' in this file, and no other: {self._absent}")
            raise _no_such(self._what, name, self._data)
        return self._data[name]

    def dims(self, name: str) -> tuple[str, ...]:
        """The names of a dataset's dimensions: ("prompt", "layer", "pos", "answer_other")."""
        return _dims(self.dataset(name))

    def __getitem__(self, name: str) -> np.ndarray:
        return _read(self.dataset(name))

    def __contains__(self, name: object) -> bool:
        return name in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        inside = ", ".join(f"{k} {list(d.shape)}" for k, d in self._data.items())
        return f"<{self._what}s: {inside}>"


# --- verification -------------------------------------------------------------

@dataclass
class Verification:
    """What `Run.verify` found. True as a condition when everything matched."""

    matched: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)  # dataset, or "/" for names and attributes: what is wrong

    def __bool__(self) -> bool:
        return bool(self.matched) and not self.wrong


def _chunk_hash(file: h5py.File) -> tuple[Callable[[bytes], bytes], int]:
    """How the file's chunks are hashed, and the bytes of such a digest. Files of schema 1 do not say it."""
    kind = file.attrs.get("digest", "sha256")
    kind = kind.decode() if isinstance(kind, bytes) else kind
    if kind == "sha256":
        return lambda chunk: hashlib.sha256(chunk).digest(), 32
    if kind != "xxh3-128":
        raise H5LensError(f"{file.filename}: its digests are of the kind '{kind}', and this reader can verify xxh3-128 and "
                          "sha256: `h5lens verify`, or the reader of the h5lens that wrote it (reading works)")
    try:
        import xxhash
    except ImportError as e:
        raise ImportError(f"{file.filename}: to verify its chunks takes the package xxhash (pip install xxhash), "
                          "or `h5lens verify`; reading works without") from e
    return xxhash.xxh3_128_digest, 16


def dataset_digest(d: h5py.Dataset) -> str:
    """The SHA-256 by which h5lens knows a dataset's content, as hex.

    Chunked numbers: over the chunks' own digests (XXH3-128 or SHA-256, as the file's attribute `digest` says) in
    row-major order of the chunk grid, with as many zero bytes, 16 or 32, for a chunk that was never written. Strings:
    over each string and a NUL byte.
    """
    total = hashlib.sha256()
    if _is_string(d):
        for first in range(0, d.shape[0], 4096):
            for text in d[first:first + 4096].ravel():
                total.update((text if isinstance(text, bytes) else text.encode()) + b"\0")
        return total.hexdigest()
    if d.chunks is None:
        raise H5LensError("neither chunked nor strings")
    chunk_hash, n_bytes = _chunk_hash(d.file)
    grid = [range(0, n, c) for n, c in zip(d.shape, d.chunks)]
    for offset in itertools.product(*grid):
        if d.id.get_chunk_info_by_coord(offset).byte_offset is None:
            total.update(bytes(n_bytes))
        else:
            total.update(chunk_hash(d.id.read_direct_chunk(offset)[1]))
    return total.hexdigest()


def file_digest(file: h5py.File) -> str:
    """The SHA-256 by which h5lens knows a file, as hex: over its names and attributes.

    The attributes of "/" but for `sha256` itself; then for each name of a dataset, in the order of the bytes, that name
    and the first name of the same dataset, and at the first its attributes. A NUL byte follows each text.
    """
    names: list[tuple[bytes, int]] = []

    def visit(name: bytes, link: Any) -> None:
        if link.type == h5py.h5l.TYPE_HARD:
            info = h5py.h5o.get_info(file.id, name)
            if info.type == h5py.h5o.TYPE_DATASET:
                names.append((b"/" + name, int(info.addr)))

    file.id.links.visit(visit, info=True)
    total, first = hashlib.sha256(), dict[int, bytes]()
    for text in _attribute_texts(file, but="sha256"):
        total.update(text + b"\0")
    for name, address in sorted(names):
        known_as = first.setdefault(address, name)
        total.update(name + b"\0" + known_as + b"\0")
        if known_as == name:
            for text in _attribute_texts(file[name]):
                total.update(text + b"\0")
    return total.hexdigest()


def _attribute_texts(item: h5py.Group | h5py.Dataset, but: str | None = None) -> Iterator[bytes]:
    """Name and text of each attribute that is one string or one whole number, by name."""
    for name in sorted(item.attrs, key=str.encode):
        attr = item.attrs.get_id(name)
        if name != but and attr.get_type().get_class() in (h5py.h5t.STRING, h5py.h5t.INTEGER) \
                and attr.get_space().get_simple_extent_npoints() == 1:
            value = np.ravel(item.attrs[name])[0]
            yield name.encode()
            yield value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")


# --- tokens as text -----------------------------------------------------------

def load_pieces(where: str | os.PathLike[str], alone: bool = False) -> dict[int, bytes]:
    """Token id → bytes, from a tokenizer.json (or the model directory that holds it, or GPT-2's vocab.json).

    Added tokens that only tokenizer_config.json or added_tokens.json beside it has are there too.
    The pieces of a text in a row are the text. With alone=True each is what its tokenizer decodes it to by itself,
    which is what TransformerLens's to_str_tokens shows: Llama's takes off a leading space, "▁Mary" is "Mary".
    """
    path = Path(where)
    if path.is_dir():
        whole, vocab = path / "tokenizer.json", path / "vocab.json"
        path = vocab if vocab.exists() and not whole.exists() else whole
    spec = json.loads(path.read_text(encoding="utf-8"))
    if "model" not in spec:
        spec = {"model": {"vocab": spec}}
    decoder = spec.get("decoder") or {"type": "ByteLevel"}
    steps = decoder.get("decoders", [decoder])
    known = {"ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    for step in steps:
        if step["type"] not in known or "Regex" in step.get("pattern", ()):
            raise H5LensError(f"{path}: the decoder {json.dumps(step)} is unknown to this reader")
    if not isinstance(spec["model"]["vocab"], dict):
        raise H5LensError(f"{path}: a vocabulary of the type {spec['model'].get('type')} is unknown to this reader")
    added = _json_object(path.parent / "tokenizer_config.json").get("added_tokens_decoder") or {}
    texts = {token: text for text, token in _json_object(path.parent / "added_tokens.json").items()}
    texts |= {int(token): value["content"] for token, value in added.items()}
    texts |= {token: text for text, token in spec["model"]["vocab"].items()}
    texts |= {token["id"]: token["content"] for token in spec.get("added_tokens", [])}
    return {token: _decoded(text, steps, alone) for token, text in texts.items()}


def tokenizer_digest(folder: str | os.PathLike[str]) -> str:
    """The SHA-256 by which h5lens knows a model directory's tokenizer, as hex: a run's attribute `sha256_tokenizer`."""
    folder, total = Path(folder), hashlib.sha256()
    small = [n for n in ("tokenizer_config.json", "special_tokens_map.json") if (folder / n).exists()]
    whole = ["tokenizer.json"] if (folder / "tokenizer.json").exists() else ["vocab.json", "merges.txt"]
    no_bos = all(_json_object(folder / name).get("bos_token") is None for name in small)
    for name in [*small, *whole, *(["config.json"] if no_bos else [])]:
        if (folder / name).exists():
            data = (folder / name).read_bytes()
            total.update(name.encode() + b"\0" + len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def _json_object(path: Path) -> dict[str, Any]:
    """Of a file that may be missing, or be no JSON object."""
    try:
        got = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return got if isinstance(got, dict) else {}


_PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTE_OF = {chr(b): b for b in _PLAIN} | {chr(256 + i): b for i, b in enumerate(sorted({*range(256)} - {*_PLAIN}))}


def _decoded(text: str, steps: list[dict[str, Any]], alone: bool) -> bytes:
    """A token's text as the steps of a tokenizer.json's decoder read it."""
    got = text.encode()
    for step in steps:
        kind = step["type"]
        if kind == "ByteLevel" and all(c in _BYTE_OF for c in text):
            got = bytes(_BYTE_OF[c] for c in text)
        elif kind == "Replace":
            got = got.replace(step["pattern"]["String"].encode(), step["content"].encode())
        elif kind == "ByteFallback" and re.fullmatch(rb"<0x[0-9A-Fa-f]{2}>", got):
            got = bytes([int(got[3:5], 16)])
        elif kind == "Metaspace":
            bare = alone and step.get("prepend_scheme", "always") != "never"
            got = got.replace(step["replacement"].encode(), b"" if bare else b" ")
        elif kind == "Strip" and alone:
            for _ in range(step["start"]):
                got = got.removeprefix(step["content"].encode())
            for _ in range(step["stop"]):
                got = got.removesuffix(step["content"].encode())
    return got


# --- TransformerLens ----------------------------------------------------------

# What HookedTransformerConfig is told of a model. Names of our own, which it doesn't know, are left out.
_TL_KEYS = {
    "n_layers", "d_model", "n_ctx", "d_head", "n_heads", "n_key_value_heads", "d_mlp", "d_vocab", "act_fn", "eps",
    "normalization_type", "original_architecture", "positional_embedding_type", "parallel_attn_mlp", "gated_mlp",
    "use_attn_scale", "attn_scale", "scale_attn_by_inverse_layer_idx", "use_local_attn", "window_size", "attn_types",
    "rotary_dim", "rotary_base", "rotary_adjacent_pairs", "use_NTK_by_parts_rope", "NTK_by_parts_factor",
    "NTK_by_parts_low_freq_factor", "NTK_by_parts_high_freq_factor", "NTK_original_ctx_len"}
_TL_N_CTX = 2048  # TransformerLens makes a mask of n_ctx × n_ctx for each layer, and limits n_ctx like this


def transformer_lens_config(run: Run) -> dict[str, Any]:
    """What TransformerLens 2.x's HookedTransformerConfig takes to be the model of this run; dtype and device are yours.

    It is `run.model_config` less what is not TransformerLens's. n_key_value_heads is there for grouped queries only
    (given for any other model, TransformerLens would leave its keys and values empty), but for Mistral and Qwen2,
    whose weights it converts as if they always had them. n_ctx is limited where positions are rotary, but never
    below the longest prompt.

    W_U is no part of it: a model's weights are loaded from its folder, and config.json there says whether W_U is the
    embedding. A run with another choice (`tied_head`) gives a warning.
    """
    config = run.model_config
    if "rope_linear_factor" in config:
        raise H5LensError(f"{run.path}: the model's rotary positions are scaled linearly, which TransformerLens 2.x "
                          "has not: its HookedTransformer would be another model")
    if (choice := run.experiment.get("tied_head", "auto")) != "auto":
        warnings.warn(
            f"{run.path}: tied_head is {choice}: W_U is the tensor {run.attr('tensor_W_U')} (W_E: "
            f"{run.attr('tensor_W_E')}), and a model that transformers loads from the folder has the W_U that "
            "config.json asks for, unless AutoModelForCausalLM.from_pretrained is told "
            f"tie_word_embeddings={choice == 'tied'}", H5LensWarning, stacklevel=2)
    got = {k: v for k, v in config.items() if k in _TL_KEYS}
    kv_heads = got.pop("n_key_value_heads", got["n_heads"])
    if kv_heads != got["n_heads"] or got["original_architecture"] in ("MistralForCausalLM", "Qwen2ForCausalLM"):
        got["n_key_value_heads"] = kv_heads
    if got["positional_embedding_type"] == "rotary":
        got["n_ctx"] = min(got["n_ctx"], max(_TL_N_CTX, int(run.lengths.max(initial=0))))
    for whole in ("rotary_base", "NTK_original_ctx_len"):
        if whole in got and got[whole] == int(got[whole]):
            got[whole] = int(got[whole])
    return {**got, "default_prepend_bos": bool(run.attr("prepend_bos")), "init_weights": False}


# --- stacks of the residual stream ---------------------------------------------

@dataclass(frozen=True, eq=False)
class _Where:
    """Of which rows and positions of which run a stack is. A single one of either has no dimension in the stack."""

    path: Path
    rows: np.ndarray
    slot: np.ndarray  # [batch, entry], as Run._slots has it
    at: np.ndarray  # [batch, entry]: the token's position, -1 past the end
    one_row: bool
    one_pos: bool

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(name for name, one in (("prompt", self.one_row), ("pos", self.one_pos)) if not one)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(n for n, one in zip(self.slot.shape, (self.one_row, self.one_pos)) if not one)


class Stack(np.ndarray):
    """An array of components of the residual stream, component first, that knows what its components are.

    labels: of the components, as TransformerLens has them; axes: the dimensions, ("component", "prompt", "pos",
    "d_model") less those that a single row or position drops. Components chosen by the first index keep their labels,
    stack[2:5] or stack[[0, -1]], and so does arithmetic that keeps the shape. Anything else gives an array without
    labels and axes (they are None).
    """

    labels: list[str] | None = None
    axes: tuple[str, ...] | None = None
    _where: _Where | None = None

    def _tell(self, labels: list[str] | None, axes: tuple[str, ...] | None, where: _Where | None) -> Stack:
        self.labels, self.axes, self._where = labels, axes, where
        return self

    @staticmethod
    def _like(stack: np.ndarray, values: np.ndarray, where: _Where) -> Stack:
        """Values with the labels of a stack, and as many of its axes as they have."""
        labels, axes = (stack.labels, stack.axes) if isinstance(stack, Stack) else (None, None)
        return values.view(Stack)._tell(labels, axes and axes[:values.ndim], where)

    def __getitem__(self, key: Any) -> Any:
        got = super().__getitem__(key)
        if isinstance(got, Stack) and self.labels is not None and self.axes is not None:
            if isinstance(key, (int, np.integer)):
                got._tell(None, self.axes[1:], self._where)
            elif isinstance(key, slice) or isinstance(key, (list, np.ndarray)) and np.ndim(key) == 1:
                got._tell(np.array(self.labels, dtype=object)[key].tolist(), self.axes, self._where)
        return got

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Any:
        if array.ndim == 0:
            return array[()]
        got = array.view(Stack)
        return got._tell(self.labels, self.axes, self._where) if array.shape == self.shape else got

    def to_xarray(self) -> Any:
        """As an xarray.DataArray: the coordinates are component, prompt (the row) and position (the token's, -1 past a
        prompt's end)."""
        if self.axes is None or self._where is None:
            raise ValueError("this array has lost its labels: to_xarray() is for what the run's methods give")
        import xarray
        at, where = self._where, {a: n for a, n in zip(self.axes, self.shape)}
        coords: dict[str, Any] = {"prompt": int(at.rows[0]) if at.one_row else at.rows,
                                  "position": (at.axes, at.at.reshape(at.shape))}
        if "component" in where:
            coords["component"] = self.labels
        return xarray.DataArray(np.asarray(self), coords, self.axes)


def _weight(weights: Mapping[str, Any] | None, name: str, what: str) -> Any:
    """A weight by TransformerLens's name: unembed.W_U, or W_U, as its HookedTransformer has both."""
    if weights is None:
        raise H5LensError(f"{what} needs the model's {name}: weights=h5lens.open_weights(…) of a file that "
                          "`h5lens weights` made with the run's settings, or another mapping of TransformerLens's names "
                          "to arrays")
    short = name.rsplit(".", 1)[-1]
    found = name if name in weights else short if name.startswith("unembed.") and short in weights else None
    if found is None:
        raise _no_such("weight", name, [k for k in weights])
    value = weights[found]
    return value.detach() if hasattr(value, "detach") else value


class Tokens(NamedTuple):
    """Activations of tokens one after another, and whose they are."""

    values: Any  # [token, …]
    row: Any  # int [token]: the prompt
    pos: Any  # int [token]: the token's position in it


# --- the run ------------------------------------------------------------------

class Run:
    """One output file, open for reading. Close it, or use it in a `with`."""

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

    def __enter__(self) -> Run:
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

    # -- what the file says about itself

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

    # -- activations

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

    def cache(self, name: str, layer: int | str | None = None, layer_type: str | None = None, *,
              rows: Rows = None, pos: Pos = None, dtype: Any = None) -> Any:
        """An activation as an array, by its full name or TransformerLens's shorthand.

        rows: a number (drops that dimension), a slice, a list or a boolean mask; dtype converts what was
        stored. NaN past the end of each prompt.

        pos chooses positions as in `activation_cache`, but that a single one ("read", a number) drops its dimension:
        cache("resid_post", 3, pos="read") is [prompt, d_model]. pos="tokens" gives `Tokens` in place of an array:
        all tokens that are stored, one after another without padding, with their row and position.
        """
        d = self.dataset(name, layer, layer_type)
        if isinstance(pos, str) and pos == "tokens":
            return self._tokens(d, _index(rows, len(self)), dtype)
        if pos is not None:
            index = _index(rows, len(self))
            got = self._batch(d, index, self._slots(index, pos), None, d.dtype if dtype is None else dtype)
            got = got if isinstance(pos, slice) else got.squeeze(_token_axis(_dims(d)))
            return got[0] if isinstance(rows, (int, np.integer)) else got
        got = _read(d, rows)
        return got if dtype is None else got.astype(dtype, copy=False)

    def by_token(self, name: str, layer: int | str | None = None, layer_type: str | None = None, *,
                 rows: Rows = None, dtype: Any = None) -> np.ndarray:
        """An activation without padding, [token, …]: the stored positions of each prompt, one prompt after the other:
        cache(…, pos="tokens").values.

        For probes and autoencoders. `token_places` tells whose they are. A run with cache.layout: ragged has them so in
        the file. Not for patterns and scores, which have two axes of positions.
        """
        return self._tokens(self.dataset(name, layer, layer_type), _index(rows, len(self)), dtype).values

    def token_places(self, rows: Rows = None) -> tuple[np.ndarray, np.ndarray]:
        """Of each entry of `by_token(…, rows=rows)`: the prompt's row, and the token's position in it."""
        index = _index(rows, len(self))
        at = self.positions(index)
        row, slot = np.nonzero(at >= 0)
        return index[row], at[row, slot]

    def batches(self, name: str, batch_tokens: int, *, layer: int | str | None = None, layer_type: str | None = None,
                shuffle: bool = True, seed: int | Sequence[int] = 0, rows: Rows = None, part: tuple[int, int] = (0, 1),
                buffer_bytes: int = 256 << 20, drop_last: bool = False, dtype: Any = None) -> Iterator[Tokens]:
        """An epoch of an activation's tokens: each token of the rows once, batch_tokens at a time, the last batch fewer.

        The file is read in the order of its chunks. shuffle: the tokens go through a buffer of buffer_bytes (where all of
        them fit, every order is as likely), and a seed always gives the same order; take another for each epoch. part
        (i, n): the i-th of n parts of the prompts, which share none and are all of them together. drop_last leaves out a
        last batch of fewer tokens. The arrays are the caller's own.
        """
        from . import batches
        d = self.dataset(name, layer, layer_type)
        return batches.epoch(self, d, batch_tokens, batches.Options(
            shuffle, seed, _index(rows, len(self)), part, buffer_bytes, drop_last, np.dtype(dtype or d.dtype)))

    def to_dataframe(self, tables: str | Sequence[str] | None = None, columns: str | Sequence[str] | None = None, *,
                     rows: Rows = None) -> Any:
        """Tables and the CSV's columns as a pandas.DataFrame; needs pandas.

        tables: names as in `results`, and with their group those of interventions ("patch/resid_pre"); by default all that
        have one number a prompt. columns: of the CSV, or id, text, length, read_pos; by default the CSV's, [] for none.

        Without further axes there is a row a prompt, and the index is the prompt's number. A table with axes ("rank_per_layer")
        gives the long form: a row for each of its numbers, with a MultiIndex of the axes' names (prompt, lens_layer, answer)
        and labels; past a prompt's end there is none. An axis with one entry (answer_other of two answers) counts as
        none. What has fewer axes is repeated; tables with different axes are refused by name.
        """
        from . import frame
        return frame.to_dataframe(self, tables, columns, _index(rows, len(self)))

    def activation_cache(self, rows: Rows = None, *, pos: Pos = None,
                         names: str | Sequence[str] | Callable[[str], bool] | None = None,
                         torch: bool = False, fill: float | None = None) -> dict[str, Any]:
        """Full name → float32 array [batch, pos, …], in the order of a forward pass.

        With torch=True the values are tensors and `ActivationCache(d, model)` wraps the dict. Aliases are
        in it and share their array. names limits what is read: a name, several, or a function of the name.

        pos chooses positions of each prompt by itself, which prompts of different lengths need: "read" is
        where the tables read, a number one token (negative from the prompt's own end), a slice those of the
        prompt as Python slices a list. As with TransformerLens's pos_slice a single position keeps its
        dimension, so that pos_slice=-1 in ActivationCache's methods means it; of patterns and scores the
        query is chosen and the key kept. A prompt without that position, or of which it is not stored, is
        an error; a slice may give fewer of one prompt than of another. `positions(rows, pos)` tells which.

        Without pos, all that is stored, trimmed to the longest prompt among rows.

        What is past a prompt's end (in patterns of query or key), or past the end of its slice, is NaN, or
        fill if that is given, and then 1 in scales, by which TransformerLens divides.
        """
        index = _index(rows, len(self))
        slot = self._slots(index, pos)
        names = [names] if isinstance(names, str) else names
        chosen = self.hooks if names is None else \
            [h for h in self.hooks if names(h)] if callable(names) else [self.name(n) for n in names]
        read: dict[int, Any] = {}
        out: dict[str, Any] = {}
        for hook in chosen:
            if hook == "logits" and names is None:  # the model's output, no hook point
                continue
            d = self._cache[hook]
            if (key := _address(d)) not in read:
                value = None if fill is None else 1.0 if hook.endswith("hook_scale") else fill
                got = self._batch(d, index, slot, value)
                read[key] = importlib.import_module("torch").from_numpy(got) if torch else got
            out[hook] = read[key]
        return out

    def _slots(self, index: np.ndarray, pos: Pos) -> np.ndarray:
        """int [batch, entry]: which of the stored positions each entry is, -1 for none."""
        at, length = self.positions(index), self.lengths[index]
        if pos is None:
            kept = np.where(at >= 0, np.arange(at.shape[1]), -1)
            return kept if "slot_pos" in self.prompts else kept[:, :length.max(initial=0)]
        if isinstance(pos, slice):
            where = [{int(p): i for i, p in reversed(list(enumerate(row))) if p >= 0} for row in at]
            each = [[here[p] for p in range(*pos.indices(int(n))) if p in here] for here, n in zip(where, length)]
            slot = np.full((len(each), max(map(len, each), default=0)), -1)
            for entries, chosen in zip(slot, each):
                entries[:len(chosen)] = chosen
            return slot
        if isinstance(pos, (int, np.integer)):
            want = np.where(pos < 0, length + pos, pos)
            if (short := (want < 0) | (want >= length)).any():
                row = int(np.argmax(short))
                raise IndexError(f"row {index[row]} has {length[row]} tokens: no position {pos}")
        elif pos == "read":
            want = _read(self.prompts.dataset("read_pos"), index)
        else:
            raise TypeError(f"pos is \"read\", a number or a slice, not {pos!r}")
        found = at == want[:, None]
        if (lost := ~found.any(1)).any():
            row = int(np.argmax(lost))
            there = ", ".join(str(p) for p in at[row] if p >= 0)
            raise IndexError(f"row {index[row]}: position {want[row]} is not stored, only {there or 'none'}: "
                             "`h5lens run --positions` (cache.positions) says which are")
        return found.argmax(1)[:, None]

    def _batch(self, d: h5py.Dataset, index: np.ndarray, slot: np.ndarray, fill: float | None,
               dtype: Any = np.float32) -> np.ndarray:
        """The rows with the entries that slot chooses; of a pattern's or score's keys, those of the prompt."""
        if id(d) not in self._axes:
            self._axes[id(d)] = _dims(d)
        dims, length = self._axes[id(d)], self.lengths[index]
        axis = _token_axis(dims)
        longest = int(length.max(initial=0))
        shape = [len(index), *(longest if name == "key" else n for name, n in zip(dims[1:], d.shape[1:]))]
        shape[axis] = slot.shape[1]
        out, gone = empty(shape, dtype), np.nan if fill is None else fill
        spans = _spans(self._entries(d, index, slot))

        def by_token(part: Part, i: int, row: int) -> None:
            own = spans[i]
            out[i, own[0][2] - own[0][1] if len(own) == 1 and own[0][0] == 0 else 0:] = gone
            for entry, first, past in own:
                part.read(row, first, past, out[i, entry:entry + past - first])

        def by_query(part: Part, i: int, row: int) -> None:
            own, keys = spans[i], int(length[i]) if dims[-1] == "key" else shape[-1]  # out[i] is [head, query, key]
            block = np.empty((shape[1], max((past for _, _, past in own), default=0), keys), part.chunks.dtype)
            part.read(row, 0, len(block), block)
            out[i] = gone
            for entry, first, past in own:
                out[i, :, entry:entry + past - first, :keys] = block[:, first:past]

        def each(part: Part, here: list[int], rows: list[int]) -> None:
            for i, row in zip(here, rows):
                (by_token if axis == 1 else by_query)(part, i, row)

        self._each_part(d, index, each)
        return out

    def _tokens(self, d: h5py.Dataset, index: np.ndarray, dtype: Any = None) -> Tokens:
        if _token_axis(_dims(d)) != 1:
            raise ValueError(f"{str(d.name).removeprefix('/cache/')} is {list(_dims(d))}: not one array for each token; "
                             "pos=\"read\" or a number gives one query of it")
        at = self.positions(index)
        kept = at >= 0
        out = empty((int(kept.sum()), *d.shape[2:]), d.dtype if dtype is None else dtype)
        self._tokens_into(d, index, np.where(kept, np.arange(at.shape[1]), -1), out)
        return Tokens(out, np.repeat(index, kept.sum(1)), at[kept])

    def _tokens_into(self, d: h5py.Dataset, index: np.ndarray, slot: np.ndarray, out: np.ndarray) -> None:
        """The entries that slot chooses of each row, one row's after another's: the only place where tokens are read."""
        spans, counts = _spans(self._entries(d, index, slot)), (slot >= 0).sum(1)
        start = np.concatenate([[0], np.cumsum(counts)]).tolist()
        beginnings = all(len(s) < 2 and (not s or s[0][:2] == (0, 0)) for s in spans)

        def read(part: Part, here: list[int], rows: list[int]) -> None:
            part.expect(rows)
            if beginnings and here == list(range(here[0], here[-1] + 1)):
                part.beginnings(rows, counts[here].tolist(), out[start[here[0]]:start[here[-1] + 1]])
                return
            for i, row in zip(here, rows):
                at = start[i]
                for _, first, past in spans[i]:
                    part.read(row, first, past, out[at:at + past - first])
                    at += past - first

        if len(index):
            self._each_part(d, index, read)

    def _each_part(self, d: h5py.Dataset, index: np.ndarray, use: Callable[[Part, list[int], list[int]], None]) -> None:
        """Calls use for each file that has some of these rows: with which of them, and what number they have there."""
        firsts = self._firsts(d)
        owner = np.searchsorted(firsts, index, side="right") - 1
        order = np.argsort(index, kind="stable")
        for i in np.unique(owner).tolist():
            here = order[owner[order] == i]
            with _lock:  # nobody closes it while it is read
                try:
                    use(self._part(d, i), here.tolist(), (index[here] - firsts[i]).tolist())
                except (OSError, RuntimeError) as e:
                    where = f" in its shard {self._shards.all[i].name}" if self._shards else ""
                    raise H5LensError(f"{self.path}: {d.name}{where} cannot be read ({e})") from e

    @staticmethod
    def _firsts(d: h5py.Dataset) -> np.ndarray:
        """The first row of each file that an activation is in."""
        flat = _flat(d)
        return flat.shards.first if isinstance(flat, _ShardedDataset) else np.zeros(1, np.int64)

    def _part(self, d: h5py.Dataset, i: int) -> Part:
        """What reads an activation's rows in the i-th file; of a shard that was closed since, with the places of before."""
        flat = _flat(d)
        if isinstance(flat, _ShardedDataset):
            flat.shards.open(i)
        known = self._parts.get((i, id(d)))
        if known is None or not known.is_open():
            local = flat
            if isinstance(flat, _ShardedDataset):
                local = flat.shards.dataset(i, flat, int(flat.first[i + 1] - flat.first[i]))
            known = self._parts[i, id(d)] = Part(local, known.chunks if known else Chunks(local, d is not flat),
                                                 None if d is flat else self._token_starts(d, i))
        return known

    def _token_starts(self, d: h5py.Dataset, i: int) -> np.ndarray:
        """Without padding: where the tokens of each row of the i-th file begin there, and the last one's end."""
        rows, first, total = self._firsts(d), self._first_of_prompt(), _flat(d).shape[0]
        own = np.append(first, total)[rows[i]:rows[i + 1] + 1 if i + 1 < len(rows) else None]
        return own - own[0]

    def _entries(self, d: h5py.Dataset, index: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """Stored positions as entries of the file's rows: without padding, those that a prompt has not are left out."""
        if d is _flat(d) or "slot_pos" not in self.prompts:
            return slot
        rank = np.cumsum(self.positions(index) >= 0, 1) - 1
        return np.where(slot < 0, -1, np.take_along_axis(rank, np.maximum(slot, 0), 1))

    # -- the residual stream: TransformerLens's ActivationCache, on what is stored

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
        parts: dict[str, tuple[str, ...]] = {}
        if incl_embeds:
            parts["embed"] = ("hook_embed",)
            if config["positional_embedding_type"] == "standard":
                parts["pos_embed"] = ("hook_pos_embed",)
        for i in range(last):
            if mode != "mlp":
                parts[f"{i}_attn_out"] = (f"blocks.{i}.hook_attn_out",)
            if mode != "attn":
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

        As TransformerLens's, which has a bias of zeros without layers, too. The parts' sum is the stream.
        """
        last, what = self._layer(layer), "get_full_resid_decomposition"
        heads = self.stack_head_results(rows, last, pos=pos, weights=weights)
        mlps = self.stack_neuron_results(rows, last, pos=pos, weights=weights) if expand_neurons else \
            self.decompose_resid(rows, last, mode="mlp", incl_embeds=False, pos=pos)
        embeds, where = self.decompose_resid(rows, 0, pos=pos), self._where(rows, pos)
        bias = np.zeros((1, *heads.shape[1:]), np.float32)
        for i in range(last):
            for name in ("attn.b_O", "mlp.b_out")[:1 + expand_neurons]:
                bias += np.asarray(_weight(weights, f"blocks.{i}.{name}", what), np.float32)
        bias[np.broadcast_to((where.at < 0).reshape(where.shape)[..., None], bias.shape[1:])[None]] = np.nan
        out = np.concatenate([heads, mlps, embeds, bias])
        if apply_ln:
            self._scale(out, where, self._norm(last))
        labels = [*(heads.labels or []), *(mlps.labels or []), *(embeds.labels or []), "bias"]
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
        if recompute_ln:
            self._center(out)
            out /= np.sqrt(np.mean(out * out, -1, keepdims=True, dtype=np.float64) + self.model_config["eps"])
        else:
            self._scale(out, where, norm)
        if not self._folded() and (recompute_ln or weights is not None):
            out *= np.asarray(_weight(weights, f"{norm}.w", "apply_ln_to_stack"))
            if recompute_ln and self._centers():
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
        if self._folded():
            if "ln_final.w" in (weights or ()) and (np.asarray(_weight(weights, "ln_final.w", "logit_attrs")) != 1).any():
                raise H5LensError("the weights have an ln_final.w, and the run's is folded into W_U: they are of other "
                                  "settings (weights.fold_ln)")
        else:
            toward *= np.asarray(_weight(weights, "ln_final.w", "logit_attrs of a run without fold_ln"))
        self._center(toward)  # instead of every component
        scale = self._at(self._stored("logit_attrs", [("ln_final.hook_scale",)])[0], where)[..., 0]
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
        if mlp_input and last == n:
            raise ValueError(f"mlp_input is for layers 0 to {n - 1}: after the last comes the unembedding")
        return int(last)

    @staticmethod
    def _before(layer: int) -> tuple[str, ...]:
        """The names of the residual stream at a layer's input."""
        return (f"blocks.{layer}.hook_resid_pre", *([f"blocks.{layer - 1}.hook_resid_post"] if layer else []))

    def _norm(self, layer: int, mlp_input: bool = False) -> str:
        return "ln_final" if layer == self.model_config["n_layers"] else f"blocks.{layer}.ln{2 if mlp_input else 1}"

    def _centers(self) -> bool:
        return str(self.model_config["normalization_type"]).startswith("LN")

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

    def _center(self, x: np.ndarray) -> None:
        if self._centers():
            x -= x.mean(-1, keepdims=True, dtype=np.float64)

    def _scale(self, x: np.ndarray, where: _Where, norm: str) -> None:
        """Centred and divided by the norm's own scale, in place."""
        self._center(x)
        x /= self._at(self._stored("the norm's scale", [(f"{norm}.hook_scale",)])[0], where)

    def _directions(self, tokens: Any, where: _Where, weights: Mapping[str, Any] | None) -> np.ndarray:
        """W_U's columns, float64 [prompt, pos, d_model] with 1 for what the tokens don't differ by."""
        ids, w_u = np.asarray(tokens), _weight(weights, "unembed.W_U", "logit_attrs")
        d_model, n = int(self.model_config["d_model"]), int(self.model_config["d_vocab"])
        if not np.issubdtype(ids.dtype, np.integer):
            raise TypeError(f"tokens are ids, whole numbers, as in run.prompts[\"answers\"]; not {tokens!r}")
        if ids.shape != where.shape[:ids.ndim]:
            raise ValueError(f"tokens are {list(ids.shape)}: one, or as the stack's {list(where.axes)}: "
                             f"{list(where.shape)}, or the first of these")
        if ((ids < -1) | (ids >= n)).any():
            raise IndexError(f"no token {int(ids[(ids < -1) | (ids >= n)][0])}: the vocabulary has {n}")
        if tuple(w_u.shape) != (d_model, n):
            raise ValueError(f"unembed.W_U is {list(w_u.shape)}, not {[d_model, n]}")
        known, back = np.unique(np.maximum(ids, 0), return_inverse=True)
        columns = np.asarray(w_u[:, known] if len(known) < 64 else np.asarray(w_u)[:, known], np.float64)
        got = np.where(ids[..., None] < 0, np.nan, columns.T[back.reshape(ids.shape)])
        return got.reshape(ids.shape + (1,) * (len(where.shape) - ids.ndim) + (d_model,))

    # -- prompts

    def tokens(self, rows: Rows = None) -> np.ndarray:
        """Token ids [row, pos], the beginning-of-sequence token included; -1 past the end."""
        return _read(self.prompts.dataset("tokens"), rows)

    def text(self, rows: Rows = None) -> Any:
        """The prompts as they stood in the CSV file: a string for one row, else an array of them."""
        return _read(self.prompts.dataset("text"), rows)

    def corrupted_tokens(self, rows: Rows = None) -> np.ndarray:
        """The corrupted prompts' token ids as tokens() has the prompts'; with data.corrupted only."""
        return _read(self.prompts.dataset("corrupted_tokens"), rows)

    def corrupted_text(self, rows: Rows = None) -> Any:
        """The corrupted prompts as text() has the prompts; with data.corrupted only."""
        return _read(self.prompts.dataset("corrupted_text"), rows)

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

    def answer_text(self, rows: Rows = None) -> np.ndarray:
        """The answers as in the CSV, strings [row, answer]."""
        return _read(self.prompts.dataset("answer_text"), rows)

    def str_tokens(self, row: int, tokenizer: str | os.PathLike[str] | None = None) -> list[str]:
        """The tokens of one prompt as TransformerLens's to_str_tokens shows them, each decoded by itself.

        tokenizer: a model directory or a tokenizer.json; by default the model's directory at the time of the run, and
        an error if its tokenizer is another one by now (with a directory given here, a warning).
        """
        return self._texts(self.tokens(int(row))[: self.lengths[row]], tokenizer, f"row {row}: ")

    def answer_tokens(self, row: int) -> list[list[int]]:
        """The token ids of each of one prompt's answers: one id each, or with `data.answer_tokens: any` as many as it has."""
        if "answers" in self.prompts:
            return self.prompts.dataset("answers")[int(row)][:, None].tolist()
        ids = self.prompts.dataset("answer_tokens")[int(row)]
        return [answer[answer >= 0].tolist() for answer in ids]

    def str_answers(self, row: int, tokenizer: str | os.PathLike[str] | None = None) -> list[list[str]]:
        """The same as texts, each token decoded by itself; tokenizer as in `str_tokens`. `answer_text` has the CSV's texts."""
        return [self.to_str_tokens(answer, tokenizer) for answer in self.answer_tokens(row)]

    def to_str_tokens(self, ids: Iterable[int], tokenizer: str | os.PathLike[str] | None = None) -> list[str]:
        """The same of any token ids: run.to_str_tokens(run.results["top_tokens"][0])."""
        return self._texts(ids, tokenizer, "")

    def _texts(self, ids: Iterable[int], tokenizer: str | os.PathLike[str] | None, of: str) -> list[str]:
        where = Path(tokenizer or self.file.attrs.get("path_model", self.experiment["model"]))
        key = where, tokenizer is not None
        if key not in self._pieces:
            self._pieces[key] = self._load_pieces(*key)
        pieces, ids = self._pieces[key], [int(t) for t in ids]
        if unknown := [t for t in ids if t not in pieces]:
            raise H5LensError(f"{self.path}: {of}token {unknown[0]}, which the tokenizer in {where} does not know; "
                              "tokenizer= takes another directory")
        return [pieces[t].decode(errors="replace") for t in ids]

    def _load_pieces(self, where: Path, given: bool) -> dict[int, bytes]:
        other = "tokenizer= takes another directory, or a tokenizer.json"
        if not given and not where.exists():
            raise FileNotFoundError(f"{where}: the model's directory at the time of the run is not there; {other}")
        want = self.file.attrs.get("sha256_tokenizer")
        changed = where.is_dir() and want is not None and tokenizer_digest(where) != want
        if changed and not given:
            raise H5LensError(f"{where}: the tokenizer's files are not those that the run read (sha256_tokenizer of "
                              f"{self.path}); {other}")
        pieces = load_pieces(where, alone=True)
        if changed:
            warnings.warn(f"{where}: the tokenizer's files are not those that the run read (sha256_tokenizer of "
                          f"{self.path})", H5LensWarning, stacklevel=4)
        return pieces

    # -- integrity

    def verify(self) -> Verification:
        """Recomputes the digest of every dataset and of the file's names and attributes ("/"), of the shards too.
        Reads everything. Needs the package xxhash, except for files of versions up to 0.3."""
        found = Verification()
        _chunk_hash(self.file)  # can it be verified?
        _verify_file(self.file, "", found)
        if not (shards := self._shards):
            return found
        for i, s in enumerate(shards.all):
            with _lock:
                shard = shards.open(i)
                _chunk_hash(shard)
                _verify_file(shard, f"{s.path.parent.name}/{s.path.name}: ", found)
        return found

    # -- xarray

    @property
    def tree(self) -> Any:
        """The whole file as an xarray.DataTree; arrays are read when they are used, while the run is open."""
        if self._tree is None:
            try:
                self._tree = _tree(self)
            except ImportError as e:
                raise ImportError("run.tree needs xarray; run.cache() and run.results do not") from e
        return self._tree


def _verify_file(file: h5py.File, prefix: str, found: Verification) -> None:
    try:
        own = file.attrs.get("sha256")
        fault = "has no digest" if own is None else \
            "names or attributes differ from the file's digest" if file_digest(file) != own else None
    except (OSError, RuntimeError, ValueError, KeyError) as e:
        fault = f"names or attributes cannot be read ({e})"
    if fault:
        found.wrong[prefix + "/"] = fault
    else:
        found.matched.append(prefix + "/")
    digest: dict[int, str] = {}  # an alias is not read again
    for name, d in _datasets(file):
        if d.is_virtual and not prefix:  # its data is verified in the shards
            continue
        want = d.attrs.get("sha256")
        want = want.decode() if isinstance(want, bytes) else want
        if want is None:
            if not d.is_scale:
                found.wrong[prefix + name] = "has no digest"
            continue
        try:
            if (key := _address(d)) not in digest:
                digest[key] = dataset_digest(d)
        except (OSError, ValueError, H5LensError) as e:
            found.wrong[prefix + name] = str(e)
            continue
        if digest[key] == want:
            found.matched.append(prefix + name)
        else:
            found.wrong[prefix + name] = "differs from its digest"


def _datasets(group: h5py.Group | None) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every name of every dataset below, aliases included (h5py's visititems gives one name each)."""
    for name, item in (group.items() if group is not None else ()):
        if isinstance(item, h5py.Dataset):
            yield name, item
        else:
            yield from ((f"{name}/{below}", d) for below, d in _datasets(item))


def _tree(run: Run) -> Any:
    """A group of the tree for each group of the file; the labels of the dimensions are at its root."""
    import xarray
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Lazy(BackendArray):
        def __init__(self, d: h5py.Dataset) -> None:
            self.d = d
            self.shape = d.shape
            self.dtype = np.dtype(object) if _is_string(d) else d.dtype

        def __getitem__(self, key: Any) -> Any:
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR,
                lambda k: (self.d.asstr() if _is_string(self.d) else self.d)[k])

    def variable(d: h5py.Dataset) -> Any:
        wanted = {k: d.attrs[k] for k in ("long_name", "units", "sha256") if k in d.attrs}
        return xarray.Variable(_dims(d), indexing.LazilyIndexedArray(Lazy(run._wrap(d))), wanted)

    groups: dict[str, Any] = {}

    def add(path: str, group: h5py.Group) -> None:
        items = {k: group[k] for k in sorted(group, key=_in_pass)}
        inside = {k: d for k, d in items.items() if isinstance(d, h5py.Dataset)}
        groups[path] = xarray.Dataset(
            {k: variable(d) for k, d in inside.items() if not d.is_scale},
            {k: variable(d) for k, d in inside.items() if d.is_scale and _is_string(d)}, dict(group.attrs))
        for name, below in items.items():
            if isinstance(below, h5py.Group):
                add(f"{path.rstrip('/')}/{name}", below)

    add("/", run.file)
    return xarray.DataTree.from_dict(groups)


# --- a model's weights ----------------------------------------------------------

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
            self.processing: dict[str, bool] = json.loads(self.file.attrs["weights"])
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
             "mlp.b_gate", "mlp.W_in", "mlp.b_in", "mlp.W_out", "mlp.b_out")


def _in_model(name: str) -> tuple[int, int, int, str]:
    """Sorts parameters as `h5lens weights` lists them."""
    if block := re.fullmatch(r"blocks\.(\d+)\.(.*)", name):
        return 1, int(block[1]), _IN_BLOCK.index(block[2]) if block[2] in _IN_BLOCK else len(_IN_BLOCK), name
    before = ("embed.W_E", "pos_embed.W_pos")
    after = ("ln_final.w", "ln_final.b", "unembed.W_U", "unembed.b_U")
    return (0, 0, before.index(name), name) if name in before else \
        (2, 0, after.index(name) if name in after else len(after), name)
