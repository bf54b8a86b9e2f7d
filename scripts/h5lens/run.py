"""A run: what run_file.py, run_cache.py and run_stacks.py give, its texts, its verification, and its tree."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .datasets import _dims, _is_string, _read
from .digests import _chunk_hash, _verify_file, Verification
from .files import _lock
from .names import _in_pass, H5LensError, H5LensWarning, Rows
from .pieces import load_pieces, tokenizer_digest
from .run_stacks import RunStacks


def open_run(path: str | os.PathLike[str]) -> Run:
    """Opens a finished output file of h5lens for reading."""
    return Run(path)


class Run(RunStacks):
    """One output file, open for reading. Close it, or use it in a `with`."""

    def text(self, rows: Rows = None) -> Any:
        """The prompts as they stood in the CSV file: a string for one row, else an array of them."""
        return _read(self.prompts.dataset("text"), rows)

    def corrupted_text(self, rows: Rows = None) -> Any:
        """The corrupted prompts as text() has the prompts; with data.corrupted only."""
        return _read(self.prompts.dataset("corrupted_text"), rows)

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
        if not given and self.file.attrs.get("tokenizer_rules") == "none":
            raise H5LensError(f"{self.path}: the run read ids, and no tokenizer; {other}")
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

    @property
    def tree(self) -> Any:
        """The whole file as an xarray.DataTree; arrays are read when they are used, while the run is open."""
        if self._tree is None:
            try:
                self._tree = _tree(self)
            except ImportError as e:
                raise ImportError("run.tree needs xarray; run.cache() and run.results do not") from e
        return self._tree


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
