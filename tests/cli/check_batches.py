"""Checks what scripts/h5lens gives to work with: cache(pos=…), batches, to_dataframe, TokenDataset; and that it installs.

In: H5LENS, the program; the demo's model, whose sweep is written in shards here; made-up files of reader_fixture.py. What is
expected comes from plain indexing of whole arrays. The part with PyTorch is skipped where that is not installed.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(HERE)]
import h5lens  # noqa: E402
import reader_fixture  # noqa: E402
from checks import Checks  # noqa: E402
from h5lens.chunks import Chunks  # noqa: E402

H5LENS = os.environ.get("H5LENS", str(ROOT / "build/h5lens"))


def raises(c: Checks, kind: type[Exception], use: Callable[[], Any], *words: str) -> None:
    try:
        use()
        c.that(False, f"no error about {words}")
    except kind as e:
        c.that(all(w in str(e) for w in words), f"{words} in: {e}")


def whole(run: h5lens.Run, hook: str) -> np.ndarray:
    """By h5py, from each file as it lies."""
    out = np.full(run.dataset(hook).shape, np.nan, run.dataset(hook).dtype)
    files, first = run.shards or [run.path], 0
    for path in files:
        with h5py.File(path, "r") as file:
            n = len(file["prompts/length"])
            if f"tokens/{hook}" in file:
                at, d, start = run.positions(slice(first, first + n)) >= 0, file[f"tokens/{hook}"], 0
                for row, kept in enumerate(at):
                    out[first + row, :at.shape[1]][kept] = d[start:start + kept.sum()]
                    start += int(kept.sum())
            else:
                d = file[f"cache/{hook}"]
                out[(slice(first, first + n), *map(slice, d.shape[1:]))] = d[...]
            first += n
    return out


# --- chosen positions -----------------------------------------------------------

def check_positions(c: Checks, run: h5lens.Run, what: str) -> None:
    at, read = run.positions(), run.prompts["read_pos"]
    for hook in run.hooks:
        x, by_query = whole(run, hook), run.dims(hook)[1] == "head"
        keys = int(run.lengths.max()) if "key" in run.dims(hook) else None
        for pos in ("read", -1, 0):
            want_at = read if pos == "read" else np.where(np.full(len(run), pos) < 0, run.lengths + pos, pos)
            if not (at == want_at[:, None]).any(1).all():
                raises(c, IndexError, lambda hook=hook, pos=pos: run.cache(hook, pos=pos), "not stored")
                continue
            entry = (at == want_at[:, None]).argmax(1)
            want = np.stack([np.take(r, e, 1 if by_query else 0)[..., :keys] for r, e in zip(x, entry)])
            got = run.cache(hook, pos=pos)
            c.that(got.dtype == x.dtype and np.array_equal(got, want, equal_nan=True), f"{what}: {hook} at {pos}")
            c.that(np.array_equal(run.cache(hook, pos=pos, rows=3), run.cache(hook, pos=pos, rows=[3])[0], equal_nan=True),
                   f"{what}: {hook} at {pos}, one row")
        if by_query:
            raises(c, ValueError, lambda hook=hook: run.cache(hook, pos="tokens"), hook, "key", "token")
            continue
        rows = [len(run) - 1, 2, 0, 1]
        got, kept = run.cache(hook, pos="tokens", rows=rows), at[rows] >= 0
        c.that(isinstance(got, h5lens.Tokens) and np.array_equal(got.values, x[rows][kept], equal_nan=True)
               and np.array_equal(got.row, np.repeat(rows, kept.sum(1))) and np.array_equal(got.pos, at[rows][kept]),
               f"{what}: {hook}, tokens")
    hook = run.hooks[0]
    empty = run.cache(hook, pos="tokens", rows=[])
    c.that(len(empty.values) == len(empty.row) == 0, f"{what}: tokens of no row")
    c.that(run.cache(hook, pos="tokens", dtype=np.float64).values.dtype == np.float64, f"{what}: dtype")


def check_without_places(c: Checks, path: Path) -> None:
    """Read through HDF5, where the chunks' places cannot be had: the same. And the places as an older HDF5 tells them."""
    def all_of(run: h5lens.Run) -> list[np.ndarray]:
        got = [run.activation_cache([3, 0, 2], pos=pos) for pos in (None, "read", slice(-3, None))]
        return [run.cache("resid_post", 1, pos="tokens").values, *(x for cache in got for x in cache.values())]

    with h5lens.open_run(path) as run:
        fast, chunks = all_of(run), run._part(run.dataset("resid_post", 1), 0).chunks
        c.that(chunks.at is not None, "the places are known")
        with h5py.File((run.shards or [path])[0], "r") as file:
            name = run.name("resid_post", 1)
            d = file[f"tokens/{name}" if f"tokens/{name}" in file else f"cache/{name}"]
            told = SimpleNamespace(get_num_chunks=d.id.get_num_chunks, get_chunk_info=d.id.get_chunk_info)
            old = SimpleNamespace(id=told, shape=d.shape, chunks=d.chunks)
            c.that(chunks.at is not None and np.array_equal(chunks._places(old), chunks.at), "the places as an older HDF5 tells them")
    with unittest.mock.patch.object(Chunks, "_plain", return_value=False), h5lens.open_run(path) as run:
        slow = all_of(run)
        c.that(run._part(run.dataset("resid_post", 1), 0).chunks.at is None, "the places are not known")
    c.that(len(fast) > 20 and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(fast, slow)), "slowly: the same")


# --- batches --------------------------------------------------------------------

def joined(batches: Any) -> h5lens.Tokens:
    return h5lens.Tokens(*(np.concatenate(x) for x in zip(*batches)))


def places(t: h5lens.Tokens) -> list[tuple[int, int]]:
    return list(zip(np.asarray(t.row).tolist(), np.asarray(t.pos).tolist()))


def check_batches(c: Checks, run: h5lens.Run, what: str) -> None:
    hook = run.name("resid_post", 1)
    x, at = whole(run, hook), run.positions()
    entry = {(r, int(p)): e for r in range(len(run)) for e, p in enumerate(at[r]) if p >= 0}
    small = 3 * 50 * x[0, 0].nbytes
    for options in ({}, {"shuffle": False}, {"buffer_bytes": small}, {"buffer_bytes": 0}, {"rows": range(1, len(run), 2)},
                    {"dtype": np.float64, "buffer_bytes": small}):
        got = list(run.batches("resid_post", 50, layer=1, seed=5, **options))
        t, rows = joined(got), list(options.get("rows", range(len(run))))
        mine = places(t)
        c.that(sorted(mine) == sorted(k for k in entry if k[0] in rows), f"{what}, {options}: each token once")
        c.that(np.array_equal(t.values, np.stack([x[r, entry[r, p]] for r, p in mine]).astype(t.values.dtype)),
               f"{what}, {options}: the values are theirs")
        c.that({len(b.row) for b in got[:-1]} == {50} and len(got[-1].row) <= 50, f"{what}, {options}: 50 a batch")
        again = joined(run.batches("resid_post", 50, layer=1, seed=5, **options))
        other = joined(run.batches("resid_post", 50, layer=1, seed=6, **options))
        c.that(places(again) == mine, f"{what}, {options}: the same by a seed")
        c.that((places(other) == mine) == (options.get("shuffle") is False), f"{what}, {options}: another by another")
        if options.get("shuffle") is False:
            c.that(mine == sorted(mine), f"{what}: the file's order")
        full = list(run.batches("resid_post", 50, layer=1, drop_last=True, **options))
        c.that({len(b.row) for b in full} == {50} and len(full) == len(mine) // 50, f"{what}, {options}: drop_last")
    for n in (2, 5, len(run) + 7):
        parts = [[k for b in run.batches("resid_post", 50, layer=1, part=(i, n)) for k in places(b)] for i in range(n)]
        c.that(sorted(k for p in parts for k in p) == sorted(entry), f"{what}: {n} parts are all, and share none")
        c.that(n > 5 or min(map(len, parts)) > 0.4 * len(entry) / n, f"{what}: {n} parts: {list(map(len, parts))}")
        rows = [{r for r, _ in p} for p in parts]
        c.that(sum(map(len, rows)) == len(set().union(*rows)), f"{what}: {n} parts share no prompt")


def check_mixed(c: Checks, run: h5lens.Run) -> None:
    """With a buffer of half the tokens, the first half of what comes has some of the second half of the file's."""
    n = int(run.lengths.sum())
    size = run.dataset("resid_post", 1).dtype.itemsize * run.model_config["d_model"]
    order = {k: i for i, k in enumerate(places(joined(run.batches("resid_post", 20, layer=1, shuffle=False))))}
    came = [order[k] for k in places(joined(run.batches("resid_post", 20, layer=1, seed=1, buffer_bytes=size * n // 2)))]
    moved = np.abs(np.array(came) - np.arange(n)).mean() / n
    c.that(moved > 0.1, f"tokens move by {moved:.2f} of the epoch")
    first = np.array([order[k] for s in range(40) for k in places(next(run.batches("resid_post", 20, layer=1, seed=s)))])
    # The mean of 800 numbers of 0 … n-1, each as likely: n/2, with a standard deviation of n/√12/√800 = 0.0102 n.
    c.that(abs(first.mean() / n - 0.5) < 5 * 0.0102, f"a first batch is from anywhere: {first.mean() / n:.3f}")


def check_forward(c: Checks, path: Path) -> None:
    """The files are read forward, and a part opens only those that it is in."""
    seen: list[tuple[int, int]] = []
    preadv = os.preadv

    def noted(fd: int, buffers: Any, offset: int) -> int:
        seen.append((fd, offset))
        return preadv(fd, buffers, offset)

    with h5lens.open_run(path) as run, unittest.mock.patch.object(os, "preadv", noted):
        size = run.dataset("resid_post", 1).dtype.itemsize * run.model_config["d_model"]
        for _ in run.batches("resid_post", 30, layer=1, buffer_bytes=100 * size):
            pass
        files = list(dict.fromkeys(fd for fd, _ in seen))
        c.that(len(files) == len(run.shards) > 2 and [fd for fd, _ in seen] == sorted((fd for fd, _ in seen), key=files.index),
               "one shard after another")
        c.that(all(own == sorted(own) for fd in files if (own := [o for f, o in seen if f == fd])), "each read forward")
        seen.clear()
        for _ in run.batches("resid_post", 30, layer=1, part=(1, 3)):
            pass
        c.that(len({fd for fd, _ in seen}) < len(run.shards), "a part of three reads not every shard")


def check_cut(c: Checks, path: Path, tmp: Path) -> None:
    """A shard that ends before its data, found while reading."""
    shutil.copytree(path.with_suffix(".shards"), tmp / "cut.shards")
    shutil.copy(path, tmp / "out.h5")
    (tmp / "cut.shards").rename(tmp / "out.shards")
    with h5lens.open_run(tmp / "out.h5") as run:
        run.cache("resid_post", 1, pos="tokens")
        shard = run.shards[-1]
        os.truncate(shard, 4096)
        raises(c, h5lens.H5LensError, lambda: run.cache("resid_post", 1, pos="tokens"), shard.name, "ends before its data")
        raises(c, h5lens.H5LensError, lambda: list(run.batches("resid_post", 9, layer=1)), shard.name)


def check_refused(c: Checks, run: h5lens.Run) -> None:
    pattern = next((h for h in run.hooks if h.endswith("pattern")), None)
    for options, words in (({"batch_tokens": 0}, ["batch_tokens"]), ({"batch_tokens": 1.5}, ["batch_tokens", "1.5"]),
                           ({"part": (2, 2)}, ["(2, 2)"]), ({"rows": [1, 1]}, ["twice"]),
                           ({"name": pattern, "layer": None}, ["query", str(pattern)])):
        call = {"name": "resid_post", "batch_tokens": 9, "layer": 1, **options}
        raises(c, ValueError, lambda call=call: run.batches(**call), *words)  # without reading a batch
    raises(c, KeyError, lambda: run.batches("resid_pst", 9, layer=1), "blocks.1.hook_resid_post")
    raises(c, TypeError, lambda: run.cache("resid_post", 1, pos="last"), "'last'")


# --- data frames ----------------------------------------------------------------

def check_frame(c: Checks, run: h5lens.Run) -> None:
    plain = run.to_dataframe()
    c.that(list(plain.index) == list(range(len(run))) and plain.index.name == "prompt", "a row a prompt")
    c.that(set(run.columns) <= set(plain) and "logit_diff" in plain and "rank_per_layer" not in plain, f"{list(plain)}")
    c.that(np.array_equal(plain["logit_diff"], run.results["logit_diff"][:, 0]), "logit_diff")
    c.that(all(list(plain[k]) == list(run.columns[k]) for k in run.columns), "the CSV's columns")
    long = run.to_dataframe(["rank_per_layer", "logit_diff", "answer_logit"], ["text"], rows=[4, 1])
    ranks = run.results["rank_per_layer"]
    c.that(long.index.names == ["prompt", "lens_layer", "answer"] and len(long) == 2 * ranks[0].size, f"{long.index.names}")
    for row in (4, 1):
        for i, layer in enumerate(run.lens_layers):
            for k, answer in enumerate(run.labels("answer")):
                got = long.loc[(row, layer, answer)]
                c.that(got["rank_per_layer"] == ranks[row, i, k] and got["text"] == run.text(row)
                       and got["logit_diff"] == run.results["logit_diff"][row, 0]
                       and got["answer_logit"] == run.results["answer_logit"][row, k], f"{row}, {layer}, {answer}: {got}")
    c.that(list(run.to_dataframe("logit_diff", [])) == ["logit_diff"], "one table, no column")
    c.that(len(run.to_dataframe([], [])) == len(run), "nothing but the prompts")
    raises(c, ValueError, lambda: run.to_dataframe(["rank_per_layer", "top_tokens"]), "top_tokens", "rank_per_layer", "k]")
    raises(c, KeyError, lambda: run.to_dataframe("logit_dif"), "logit_diff")
    raises(c, KeyError, lambda: run.to_dataframe(columns=["orde"]), "order")
    with unittest.mock.patch.dict(sys.modules, {"pandas": None}):
        raises(c, ImportError, run.to_dataframe, "pip install pandas")


def check_frame_positions(c: Checks, run: h5lens.Run) -> None:
    """Past a prompt's end there is no row; a grid of patching by its group's name."""
    got = run.to_dataframe("patch/resid_pre", [])
    c.that(got.index.names[:3] == ["prompt", "layer", "pos"], f"{got.index.names}")
    n = got.groupby(level=["prompt", "layer"]).size().unstack()
    c.that((n.to_numpy() == run.lengths[:, None]).all(), "as many positions as the prompt has")
    grid = run.patch["resid_pre"]
    c.that(all(np.array_equal(got.loc[(1, layer), "patch/resid_pre"], grid[1, layer, :run.lengths[1], 0], equal_nan=True)
               for layer in range(grid.shape[1])), "its numbers")


# --- PyTorch --------------------------------------------------------------------

def check_torch(c: Checks, path: Path) -> None:
    try:
        from h5lens.torch import TokenDataset
        from torch.utils.data import DataLoader
    except ImportError as e:
        print(f"skipped: TokenDataset in DataLoaders: {e.name} is not installed")
        return
    with h5lens.open_run(path) as run:
        x, n = whole(run, run.name("resid_post", 1)), int(run.lengths.sum())
    data = TokenDataset(path, "resid_post", 40, layer=1, seed=2)
    c.that(places(joined(pickle.loads(pickle.dumps(data)))) == places(joined(data)), "it can be pickled")
    for how, workers in (("fork", 2), ("spawn", 2), (None, 0)):
        loader = DataLoader(data, batch_size=None, num_workers=workers, multiprocessing_context=how,
                            persistent_workers=workers > 0)
        orders = []
        for epoch in (0, 1, 0):
            data.set_epoch(epoch)
            t = h5lens.Tokens(*(np.asarray(v) for v in joined(loader)))
            orders.append(places(t))
            c.that(len(t.row) == n == len(set(orders[-1])), f"{how}: each token once in epoch {epoch}")
            c.that(np.array_equal(t.values, x[t.row, t.pos]), f"{how}: their values")
        c.that(orders[0] == orders[2] != orders[1], f"{how}: an order for each epoch")
        del loader
    ranks = [places(joined(TokenDataset(path, "resid_post", 40, layer=1, rank=i, world_size=3))) for i in range(3)]
    c.that(len(set().union(*ranks)) == n == sum(map(len, ranks)), "three ranks share no token")
    raises(c, KeyError, lambda: TokenDataset(path, "resid_pst", 40, layer=1), "resid_post")
    raises(c, ValueError, lambda: TokenDataset(path, "resid_post", 40, layer=1, rank=3, world_size=3), "rank")


# --- installing -----------------------------------------------------------------

def check_installed(c: Checks, tmp: Path) -> None:
    version = subprocess.run([H5LENS, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    c.that(version.rstrip(",") == h5lens.__version__, f"the reader is {h5lens.__version__}, the program {version}")
    local = {p.stem for p in (ROOT / "scripts").glob("*.py")}
    for program in sorted(p for kind in ("plot*.py", "report*.py") for p in (ROOT / "scripts").glob(kind)):
        used = set(re.findall(r"^\s*(?:from|import) (\w+)", program.read_text(encoding="utf-8"), re.M)) & local
        c.that(all(name.startswith(("plot", "report")) for name in used), f"{program.name}: setup.py takes none of {used}")
    subprocess.run(["make", "-s", "install", f"BUILD={os.path.dirname(H5LENS) or '.'}", f"DESTDIR={tmp}", "PREFIX=/p"], cwd=ROOT,
                   check=True, capture_output=True)
    there = tmp / "p/share/h5lens/python"
    for code in ("import h5lens, h5lens.chunks, h5lens.batches, h5lens.frame; assert h5lens.__file__.startswith(FOLDER)",
                 "import sys; sys.argv = ['plot', '--help']; import h5lens.programs; h5lens.programs.plot()"):
        done = subprocess.run([sys.executable, "-c", code.replace("FOLDER", repr(str(there)))], cwd=tmp, capture_output=True,
                              text=True, check=False, env={**os.environ, "PYTHONPATH": str(there)})
        if "matplotlib is not installed" in done.stderr:
            print("skipped: h5lens-plot: matplotlib is not installed")
            continue
        c.that(done.returncode == 0, f"installed: {done.stderr[-300:]}")


def main() -> int:
    c = Checks()
    with tempfile.TemporaryDirectory() as folder:
        tmp = Path(folder)
        for kind in ({}, {"f16": True}, {"slots": True}, {"patched": True}):
            path = tmp / ("_".join(kind) + "good.h5")
            reader_fixture.make(path, **kind)
            with h5lens.open_run(path) as run:
                check_positions(c, run, f"{kind}")
                check_batches(c, run, f"{kind}")
                if kind == {"patched": True}:
                    check_frame_positions(c, run)
        check_without_places(c, tmp / "good.h5")
        out = tmp / "out.h5"
        done = subprocess.run([H5LENS, "run", str(ROOT / "experiments/ioi.yaml"), "-o", str(out), "--limit", "60", "--set",
                               "shards.prompts=16"], capture_output=True, text=True, check=False)
        c.that(done.returncode == 0, f"h5lens run: {done.stderr[-300:]}")
        # 25 is missing between others in many of these prompts, and no token is stored twice: none has 26.
        for what, more in (("ragged, one file", ["shards.prompts=100"]), ("ragged, shards", ["shards.prompts=16"]),
                           ("ragged, slots", ["shards.prompts=16", "cache.positions=[0, 25, -1]"])):
            path, settings = tmp / "ragged.h5", [w for s in ["cache.layout=ragged", *more] for w in ("--set", s)]
            done = subprocess.run([H5LENS, "run", str(ROOT / "experiments/ioi.yaml"), "-o", str(path), "--limit", "60",
                                   "--overwrite", *settings], capture_output=True, text=True, check=False)
            c.that(done.returncode == 0, f"h5lens run, {what}: {done.stderr[-300:]}")
            with h5lens.open_run(path) as run:
                c.that(bool(run.shards) == ("100" not in more[0]), f"{what}: {len(run.shards)} shards")
                check_positions(c, run, what)
                check_batches(c, run, what)
            check_without_places(c, path)
        with h5lens.open_run(out) as run:
            check_positions(c, run, "shards")
            check_batches(c, run, "shards")
            check_mixed(c, run)
            check_refused(c, run)
            check_frame(c, run)
        check_without_places(c, out)
        check_forward(c, out)
        check_torch(c, out)
        (tmp / "cut").mkdir()
        check_cut(c, out, tmp / "cut")
        check_installed(c, tmp / "installed")
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
