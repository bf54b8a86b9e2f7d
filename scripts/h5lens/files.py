"""Files that are open: shards, which are opened when they are read, and how many of them at a time."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .names import H5LensError, TooManyFiles

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]
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
