"""Tables and columns of a run as a pandas.DataFrame: a row a prompt, or the long form of tables with axes.

In: a run, names of tables and columns. Out: a DataFrame whose index is the prompt's number, or a MultiIndex of the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from .datasets import _dims, _read

if TYPE_CHECKING:
    from .run_cache import RunCache

_GROUPS = {"patch": "patch", "ablate": "ablate", "steer": "steer", "knockout": "knockout", "path": "paths"}
_PROMPT = ("id", "text", "length", "read_pos")


def to_dataframe(run: RunCache, tables: str | Sequence[str] | None, columns: str | Sequence[str] | None, rows: np.ndarray) -> Any:
    try:
        import pandas
    except ImportError as e:
        raise ImportError("run.to_dataframe needs the package pandas (pip install pandas); "
                          "run.results and run.columns do not") from e
    wanted = {t: _table(run, t) for t in _names(run, tables)}
    heads = {c: _column(run, c) for c in ([columns] if isinstance(columns, str) else columns if columns is not None
                                          else list(run.columns))}
    if both := [c for c in heads if c in wanted]:
        raise ValueError(f"{both[0]} is a column and a table: say columns= without it")
    axes = _axes(wanted)
    extent = {a: n for d in wanted.values() for a, n in zip(_dims(d), d.shape)} | {"prompt": len(rows)}
    kept = _within(run, axes, extent, rows)
    frame: dict[str, Any] = {}
    for name, d in [*heads.items(), *wanted.items()]:
        own = _dims(d)
        value = _rows(d, rows).reshape([extent[a] if a in own else 1 for a in axes])
        frame[name] = np.broadcast_to(value, [extent[a] for a in axes])[kept]
    if axes == ("prompt",):
        return pandas.DataFrame(frame, pandas.Index(rows, name="prompt"))
    labels = [rows if a == "prompt" else run.labels(a) or range(extent[a]) for a in axes]
    index = pandas.MultiIndex.from_product(labels, names=axes)[np.flatnonzero(kept)]
    return pandas.DataFrame(frame, index)


def _names(run: RunCache, tables: str | Sequence[str] | None) -> list[str]:
    if tables is None:
        return [t for t in run.results if _axes({t: run.results.dataset(t)}) == ("prompt",)]
    return [tables] if isinstance(tables, str) else list(tables)


def _table(run: RunCache, name: str) -> h5py.Dataset:
    group, _, grid = name.rpartition("/")
    return getattr(run, _GROUPS[group]).dataset(grid) if group in _GROUPS else run.results.dataset(name)


def _column(run: RunCache, name: str) -> h5py.Dataset:
    return run.prompts.dataset(name) if name in _PROMPT and name not in run.columns else run.columns.dataset(name)


def _rows(d: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    return np.asarray(_read(d, rows))


def _axes(tables: dict[str, h5py.Dataset]) -> tuple[str, ...]:
    """The axes of all tables: those of the one with the most, of which the others' must be some."""
    each = {t: tuple(a for i, (a, n) in enumerate(zip(_dims(d), d.shape)) if i == 0 or n != 1) for t, d in tables.items()}
    most = max(each, key=lambda t: len(each[t]), default=None)
    for t, axes in each.items():
        if most is not None and not set(axes) <= set(each[most]):
            raise ValueError(f"{t} [{', '.join(axes)}] and {most} [{', '.join(each[most])}] have different axes: "
                             "ask for them one at a time, and join the frames")
    return each[most] if most is not None else ("prompt",)


def _within(run: RunCache, axes: tuple[str, ...], extent: dict[str, int], rows: np.ndarray) -> np.ndarray:
    """bool [*axes]: not past a prompt's end."""
    kept = np.ones([extent[a] for a in axes], bool)
    for i, a in enumerate(axes):
        if a in ("pos", "query", "key"):
            inside = np.arange(extent[a]) < run.lengths[rows][:, None]
            kept &= inside.reshape([len(rows) if k == 0 else extent[a] if k == i else 1 for k in range(len(axes))])
    return kept
