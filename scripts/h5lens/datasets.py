"""Datasets that are read otherwise than HDF5 would: put together from shards, or padded from tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import h5py
import numpy as np

from .files import _lock, _Shards
from .names import _no_such, H5LensError, Rows, UnknownName


def _nothing(dtype: Any) -> float:
    """What stands where there is no token: NaN, of integers -1."""
    return np.nan if np.dtype(dtype).kind == "f" else -1


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
        dtype = self.dtype if new_dtype is None else new_dtype
        out = np.full([len(rows), len(slots), *map(len, inner)], _nothing(self.dtype), dtype)
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


class Tokens(NamedTuple):
    """Activations of tokens one after another, and whose they are."""

    values: Any  # [token, …]
    row: Any  # int [token]: the prompt
    pos: Any  # int [token]: the token's position in it


def _datasets(group: h5py.Group | None) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every name of every dataset below, aliases included (h5py's visititems gives one name each)."""
    for name, item in (group.items() if group is not None else ()):
        if isinstance(item, h5py.Dataset):
            yield name, item
        else:
            yield from ((f"{name}/{below}", d) for below, d in _datasets(item))
