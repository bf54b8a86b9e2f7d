"""Activations read from a run: by prompts and positions, by tokens, in batches, as a TransformerLens cache."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h5py
import numpy as np

from .chunks import Chunks, empty, Part
from .datasets import _address, _dims, _flat, _index, _nothing, _read, _ShardedDataset, _spans, _token_axis, Tokens
from .files import _lock
from .names import H5LensError, Pos, Rows
from .run_file import RunFile


class RunCache(RunFile):
    """And its activations, by prompt, position and token."""

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
        """Full name → float32 array [batch, pos, …] (hook_expert_indices: int32), in the order of a forward pass.

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
        fill if that is given, and then 1 in scales, by which TransformerLens divides; in integers always -1.
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
                real = d.dtype.kind == "f"
                value = None if fill is None or not real else 1.0 if hook.endswith("hook_scale") else fill
                got = self._batch(d, index, slot, value, np.float32 if real else d.dtype)
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
        out, gone = empty(shape, dtype), _nothing(d.dtype) if fill is None else fill
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
