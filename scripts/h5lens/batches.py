"""Tokens of an activation in batches, for training: read in the order of the file, given out in another.

In: a run, an activation, how many tokens a batch has. Out: `Tokens`. The rows are cut into blocks of whole chunks; blocks
are read one after another into a buffer, whose tokens are given out in a random order until half of it is left, then it
is filled again. So each token comes once, the disk is read forward, and a token can come long after those beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from .chunks import empty
from .datasets import Tokens

if TYPE_CHECKING:
    from .run_cache import RunCache


@dataclass(frozen=True)
class Options:
    shuffle: bool
    seed: int | Sequence[int]
    rows: np.ndarray
    part: tuple[int, int]
    buffer_bytes: int
    drop_last: bool
    dtype: np.dtype


def epoch(run: RunCache, d: h5py.Dataset, batch_tokens: int, o: Options) -> Iterator[Tokens]:
    """Checks what was asked for; what it returns reads."""
    if not isinstance(batch_tokens, (int, np.integer)) or batch_tokens < 1:
        raise ValueError(f"batch_tokens is a whole number from 1 on, not {batch_tokens!r}")
    if not 0 <= o.part[0] < o.part[1]:
        raise ValueError(f"part is (i, n) with 0 ≤ i < n, not {o.part!r}")
    if (np.diff(np.sort(o.rows)) == 0).any():
        raise ValueError("rows: a row stands there twice, and a token comes once in an epoch")
    run._tokens(d, o.rows[:0])  # has it tokens?
    blocks = split(run, d, np.sort(o.rows), o.part)
    size = math.prod(d.shape[2:]) * o.dtype.itemsize
    room = max(int(batch_tokens) * (2 if o.shuffle else 1), o.buffer_bytes // max(1, size))
    return _give(run, d, blocks, int(batch_tokens), room, o)


def split(run: RunCache, d: h5py.Dataset, rows: np.ndarray, part: tuple[int, int]) -> list[tuple[np.ndarray, int]]:
    """The rows of one part in blocks, each of the same chunks, with its tokens; parts differ by about a block's."""
    if not len(rows):
        return []
    first = run._firsts(d)
    shard = np.searchsorted(first, rows, side="right") - 1
    chunk = run._part(d, 0).rows_a_chunk()
    step = max(1, min(chunk, len(rows) // (8 * part[1])))
    block = (rows - first[shard]) // step
    start = np.concatenate([[0], np.flatnonzero((np.diff(shard) != 0) | (np.diff(block) != 0)) + 1])
    n = np.add.reduceat(_counts(run, rows), start)
    owner = np.minimum((np.cumsum(n) - n / 2) * part[1] // max(1, n.sum()), part[1] - 1)
    return [(b, m) for b, m, o in zip(np.split(rows, start[1:]), n.tolist(), owner) if o == part[0]]


def _counts(run: RunCache, rows: np.ndarray) -> np.ndarray:
    """How many tokens are stored of each row."""
    return (run.positions(rows) >= 0).sum(1) if "slot_pos" in run.prompts else run.lengths[rows].astype(np.int64)


def _give(run: RunCache, d: h5py.Dataset, blocks: list[tuple[np.ndarray, int]], batch: int, room: int,
          o: Options) -> Iterator[Tokens]:
    rng = np.random.default_rng(o.seed)
    longest = max((m for _, m in blocks), default=0)
    room = min(room, sum(m for _, m in blocks))
    keep = max(0, min(room // 2, room - batch)) if o.shuffle else 0
    values = empty((room + longest, *d.shape[2:]), o.dtype)
    row, pos = np.empty(len(values), np.int64), np.empty(len(values), np.int64)
    n = 0
    for i, (block, m) in enumerate(blocks):
        at = run.positions(block)
        kept = at >= 0
        run._tokens_into(d, block, np.where(kept, np.arange(at.shape[1]), -1), values[n:n + m])
        row[n:n + m], pos[n:n + m] = np.repeat(block, kept.sum(1)), at[kept]
        n += m
        last = i + 1 == len(blocks)
        if n < room and not last:
            continue
        order = rng.permutation(n) if o.shuffle else np.arange(n)
        start = 0
        while n - start >= batch + (0 if last else keep) or last and start < n and not (o.drop_last and n - start < batch):
            take = order[start:start + batch]
            given = empty((len(take), *values.shape[1:]), o.dtype)
            yield Tokens(np.take(values[:n], take, 0, given, "clip"), row[take], pos[take])
            start += len(take)
        rest = order[start:]
        n = len(rest)
        values[:n], row[:n], pos[:n] = values[rest], row[rest], pos[rest]
