"""Where the chunks of a dataset are in its file, and rows read from there.

HDF5 takes some 50 µs for each row that it is asked for; the system takes two. h5lens compresses nothing and writes whole
chunks, so that a row's place is known from its chunk's: here it is read with preadv, straight into the caller's array.
In: an open dataset [row, …] of two dimensions or more. A dataset with filters, of another byte order, or where the
system has no preadv is read through HDF5, slower and with the same result.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
import os
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np


_HUGE = 2 << 20  # a large page
_AT_ONCE = 400  # rows of one system call, which takes at most 1,024 buffers


def empty(shape: Iterable[int], dtype: Any) -> np.ndarray:
    """numpy.empty, in large pages from half a MiB on; NumPy asks for them from 4 MiB on. A sixth of the page faults' time."""
    shape, dtype = tuple(shape), np.dtype(dtype)
    n = math.prod(shape) * dtype.itemsize
    if not _HUGE // 4 <= n < 2 * _HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(shape, dtype)
    pages = mmap.mmap(-1, -(-n // _HUGE) * _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype, math.prod(shape)).reshape(shape)


class Chunks:
    """The places of a dataset's chunks. They hold for any handle of the same file, which is never changed."""

    def __init__(self, d: h5py.Dataset, by_token: bool = False) -> None:
        """by_token: the first dimension is that of tokens, of one row that has them all."""
        one = (1,) if by_token else ()
        self.shape, self.chunk, self.dtype, self.fill = (*one, *d.shape), (*one, *(d.chunks or d.shape)), d.dtype, d.fillvalue
        self.step = math.prod(self.chunk[2:]) * self.dtype.itemsize  # bytes of one entry of the second dimension
        self.size = self.chunk[0] * self.chunk[1] * self.step
        self.at = self._places(d) if self._plain(d) else None  # byte offset of each chunk; -1: never written
        self.first: list[list[int]] = [] if self.at is None else self.at.reshape(*self.at.shape[:2], -1)[:, :, 0].tolist()

    @staticmethod
    def _plain(d: h5py.Dataset) -> bool:
        return (hasattr(os, "preadv") and hasattr(d.id, "get_chunk_info") and d.chunks is not None and not d.is_virtual
                and d.dtype.isnative and d.dtype.kind in "fiu" and d.id.get_create_plist().get_nfilters() == 0
                and d.file.driver == "sec2" and d.file.userblock_size == 0)

    def _places(self, d: h5py.Dataset) -> np.ndarray:
        at = np.full([-(-n // c) for n, c in zip(d.shape, d.chunks)], -1, np.int64)

        def place(chunk: Any) -> None:
            at[tuple(o // c for o, c in zip(chunk.chunk_offset, d.chunks))] = chunk.byte_offset

        if hasattr(d.id, "chunk_iter"):
            d.id.chunk_iter(place)
        else:  # HDF5 before 1.12.3
            for i in range(d.id.get_num_chunks()):
                place(d.id.get_chunk_info(i))
        return at.reshape([-(-n // c) for n, c in zip(self.shape, self.chunk)])


class Part:
    """A dataset's rows in one open file: padded ones, or with starts those of a dataset of tokens, by where each begins."""

    def __init__(self, d: h5py.Dataset, chunks: Chunks, starts: np.ndarray | None = None) -> None:
        self._d, self.chunks, self._starts = d, chunks, starts
        self._fd = d.file.id.get_vfd_handle() if chunks.at is not None else -1

    def is_open(self) -> bool:
        return bool(self._d)

    def rows_a_chunk(self) -> int:
        c = self.chunks.chunk
        return int(c[0] if self._starts is None else max(1, (len(self._starts) - 1) * c[1] // max(1, self._starts[-1])))

    def read(self, row: int, first: int, past: int, out: np.ndarray) -> None:
        """Fills out with d[row, first:past, …], of the further dimensions as much as out has, in out's type."""
        c = self.chunks
        if self._starts is not None:
            start = int(self._starts[row])
            row, first, past = 0, first + start, past + start
        if c.at is None:
            where = (slice(first, past), *(slice(n) for n in out.shape[1:]))
            out[...] = self._d[where if self._starts is not None else (row, *where)]
            return
        i, r = divmod(row, c.chunk[0])
        n, j = c.chunk[1], first // c.chunk[1]
        if past <= (j + 1) * n and out.shape[1:] == c.chunk[2:] and out.dtype == c.dtype and out.flags.c_contiguous:
            offset = c.first[i][j] + (r * n + first - j * n) * c.step  # the usual case, in few steps
            if c.first[i][j] >= 0 and os.preadv(self._fd, [out.data], offset) == out.nbytes:
                return
        for j in range(first // n, -(-past // n)):
            a, b = max(first, j * n), min(past, (j + 1) * n)
            start = (r * n + a - j * n) * c.step
            target = out[a - first:b - first]
            if all(x <= y for x, y in zip(target.shape[1:], c.chunk[2:])):
                self._piece(c.at[(i, j, *[0] * (target.ndim - 1))].item(), start, target)
                continue
            for cell in itertools.product(*(range(-(-x // y)) for x, y in zip(target.shape[1:], c.chunk[2:]))):
                where = tuple(slice(k * y, (k + 1) * y) for k, y in zip(cell, c.chunk[2:]))
                self._piece(c.at[(i, j, *cell)].item(), start, target[(slice(None), *where)])

    def beginnings(self, rows: list[int], counts: list[int], out: np.ndarray) -> None:
        """Fills out with the first entries of each row, one row's after another's: of rows side by side in a chunk at once."""
        c = self.chunks
        if self._starts is not None:
            self._one_after_another(rows, counts, out)
            return
        plain = (c.at is not None and out.shape[1:] == c.chunk[2:] and out.dtype == c.dtype and out.flags.c_contiguous
                 and max(counts, default=0) <= c.chunk[1])
        into = out.reshape(-1).view(np.uint8).data if plain and out.size else memoryview(b"")
        between = memoryview(bytearray(c.chunk[1] * c.step if plain else 0))
        k = at = 0
        while k < len(rows):
            past, end = k, at
            buffers: list[memoryview] = []
            while plain and past < len(rows) and past - k < _AT_ONCE and rows[past] - rows[k] == past - k \
                    and (past == k or rows[past] % c.chunk[0]):
                n = counts[past]
                buffers += [into[end * c.step:(end + n) * c.step], between[:(c.chunk[1] - n) * c.step]]
                past, end = past + 1, end + n
            if len(buffers) > 2 and self._at_once(rows[k], buffers[:-1]):
                k, at = past, end
                continue
            self.read(rows[k], 0, counts[k], out[at:at + counts[k]])
            k, at = k + 1, at + counts[k]

    def _one_after_another(self, rows: list[int], counts: list[int], out: np.ndarray) -> None:
        """The same without padding: rows whose tokens are side by side at once."""
        n = np.diff(self._starts).tolist() if self._starts is not None else []
        k = at = 0
        while k < len(rows):
            past, end = k + 1, at + counts[k]
            while past < len(rows) and rows[past] == rows[past - 1] + 1 and counts[past - 1] == n[rows[past - 1]]:
                past, end = past + 1, end + counts[past]
            self.read(rows[k], 0, end - at, out[at:end])
            k, at = past, end

    def _at_once(self, row: int, buffers: list[memoryview]) -> bool:
        """One read from the beginning of a row; False where its chunk was never written, or the system gave less."""
        c = self.chunks
        i, r = divmod(row, c.chunk[0])
        offset = c.at[(i, *[0] * (c.at.ndim - 1))].item() if c.at is not None else -1
        return offset >= 0 and os.preadv(self._fd, buffers, offset + r * c.chunk[1] * c.step) == sum(map(len, buffers))

    def _piece(self, offset: int, start: int, target: np.ndarray) -> None:
        """What one chunk has of it, from `start` bytes on."""
        c = self.chunks
        if offset < 0:
            target[...] = c.fill
            return
        whole = (len(target), *c.chunk[2:])
        direct = target.shape == whole and target.dtype == c.dtype and target.flags.c_contiguous
        block: Any = target if direct else np.empty(whole, c.dtype)
        if os.preadv(self._fd, [block], offset + start) != block.nbytes:
            self._slowly(block, offset + start)
        if not direct:
            target[...] = block[tuple(slice(n) for n in target.shape)]

    def _slowly(self, block: Any, offset: int) -> None:
        """After a read that gave less than was asked for: the system may, and a file may have been cut."""
        into, done = block.reshape(-1).view(np.uint8).data, 0
        while done < len(into):
            got = os.preadv(self._fd, [into[done:]], offset + done)
            if got == 0:
                raise OSError("the file ends before its data")
            done += got

    def expect(self, rows: Iterable[int]) -> None:
        """Tells the system that all chunks of these rows will be read."""
        c = self.chunks
        if c.at is None or not hasattr(os, "posix_fadvise"):
            return
        chunks: set[tuple[int, ...]]
        if self._starts is None:
            chunks = {(row // c.chunk[0],) for row in rows}
        else:
            chunks = {(0, j) for row in rows
                      for j in range(int(self._starts[row]) // c.chunk[1], -(-int(self._starts[row + 1]) // c.chunk[1]))}
        for chunk in sorted(chunks):
            for offset in np.ravel(c.at[chunk]).tolist():
                if offset >= 0:
                    with contextlib.suppress(OSError):  # it is only advice
                        os.posix_fadvise(self._fd, offset, c.size, os.POSIX_FADV_WILLNEED)
