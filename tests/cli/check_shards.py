"""Checks that scripts/h5lens reads a run in shards, and never NaN for a shard that is missing.

The files are made here with h5py, as h5lens makes them: a master whose activations are virtual datasets, and
its shards beside it.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import checks  # noqa: E402
import h5lens  # noqa: E402

ROWS, POS = (3, 2), (2, 4)
HOOK = "blocks.0.hook_resid_post"


class Checks(checks.Checks):
    def refuses(self, path: Path, *parts: str) -> None:
        try:
            h5lens.open_run(path).close()
            self.that(False, f"opened, and should have said {parts}")
        except h5lens.H5LensError as e:
            self.that(all(part in str(e) for part in parts), f"{parts} in: {e}")


def put(file: h5py.File, name: str, v: np.ndarray) -> None:
    """One chunk, with its digest."""
    d = file.create_dataset(name, data=v, chunks=v.shape)
    own = hashlib.sha256(np.ascontiguousarray(v).tobytes()).digest()
    d.attrs["sha256"] = hashlib.sha256(own).hexdigest()


def make(folder: Path) -> Path:
    (folder / "out.shards").mkdir()
    master, names, first = folder / "out.h5", [], 0
    layout = h5py.VirtualLayout((sum(ROWS), max(POS)), "f4")
    for i, (rows, pos) in enumerate(zip(ROWS, POS)):
        names.append(f"out.shards/{i:05}.h5")
        v = np.arange(rows * pos, dtype="f4").reshape(rows, pos) + 100 * i
        with h5py.File(folder / names[-1], "w") as shard:
            shard.attrs["h5lens_schema"] = 1
            shard.attrs["sha256"] = f"{i}" * 64
            put(shard, f"cache/{HOOK}", v)
        layout[first:first + rows, :pos] = h5py.VirtualSource(names[-1], f"cache/{HOOK}", v.shape)
        first += rows
    with h5py.File(master, "w", libver=("v110", "v110")) as f:
        f.attrs["h5lens_schema"] = 1
        put(f, "prompts/length", np.repeat(POS, ROWS).astype("i4"))
        f.create_virtual_dataset(f"cache/{HOOK}", layout, fillvalue=np.nan)
        f.create_dataset("shards/name", data=names, dtype=h5py.string_dtype())
        f.create_dataset("shards/sha256", data=[f"{i}" * 64 for i in range(2)], dtype=h5py.string_dtype())
        f["shards/size"] = [(folder / n).stat().st_size for n in names]
        f["shards/first_row"], f["shards/n_rows"] = np.cumsum(ROWS) - ROWS, ROWS
        for name in ("name", "sha256", "size", "first_row", "n_rows"):
            f[f"shards/{name}"].attrs["sha256"] = ""
    return master


def check_read(c: Checks, master: Path) -> None:
    with h5lens.open_run(master) as run:
        v = run.cache(HOOK)
        c.that(v.shape == (5, 4) and v[0, 1] == 1 and v[3, 3] == 103, "values")
        c.that(np.isnan(v[:3, 2:]).all() and not np.isnan(v[3:]).any(), "NaN past a shard's own extent")
        c.that(len(run.shards) == 2, "shards")
        found = run.verify()
        c.that("out.shards/00001.h5: cache/" + HOOK in found.matched, "verify reads the shards")
        c.that(not any("cache" in name for name in found.wrong), f"verify: {found.wrong}")
    with h5py.File(master.parent / "out.shards/00001.h5", "r+") as shard:
        shard[f"cache/{HOOK}"][0, 0] = 7
    with h5lens.open_run(master) as run:
        c.that("out.shards/00001.h5: cache/" + HOOK in run.verify().wrong, "verify finds what changed")


def check_foreign(c: Checks, master: Path) -> None:
    """A shard that holds something else under the name; its size and digest are made to be right."""
    path = master.parent / "out.shards/00001.h5"
    kept = path.read_bytes()
    words = "00001.h5 is not what belongs here"
    for name, value in (("nothing", None), ("other rows", np.zeros((1, 4), "f4")), ("too wide", np.zeros((2, 9), "f4")),
                        ("another type", np.zeros((2, 4), "f8")), ("another rank", np.zeros((2, 4, 1), "f4"))):
        with h5lens.open_run(master) as run:
            with h5py.File(path, "r+") as shard:
                del shard[f"cache/{HOOK}"]
                if value is not None:
                    put(shard, f"cache/{HOOK}", value)
            run._shards.all[1].size = path.stat().st_size
            try:
                c.that(False, f"{name}: read as {run.cache(HOOK).tolist()}")
            except h5lens.H5LensError as e:
                c.that(words in str(e), f"{name}: {e}")
            c.that(run.cache(HOOK, rows=slice(0, 3))[0, 1] == 1, f"{name}: the other shard can be read")
        path.write_bytes(kept)


def check_faults(c: Checks, master: Path) -> None:
    first, second = master.parent / "out.shards/00000.h5", master.parent / "out.shards/00001.h5"
    kept = second.read_bytes()
    second.unlink()
    c.refuses(master, "out.shards/00001.h5 is missing", "2 shards")
    second.write_bytes(kept[:-1])
    c.refuses(master, "out.shards/00001.h5 has", "bytes")
    second.write_bytes(b"\0" * len(kept))
    c.refuses(master, "out.shards/00001.h5 cannot be opened")
    second.write_bytes(kept.replace(b"1" * 64, b"2" * 64))
    c.refuses(master, "out.shards/00001.h5 is another file")
    second.write_bytes(kept)
    first.unlink()
    second.unlink()
    c.refuses(master, "00000.h5 is missing", "00001.h5 is missing")


def check_lists(c: Checks, master: Path) -> None:
    for first, n, words in (((0, 2), ROWS, "do not follow"), ((0, 3), (3, 0), "do not follow"), ((0, 3), (3, 1), "5 rows")):
        with h5py.File(master, "r+") as f:
            f["shards/first_row"][...], f["shards/n_rows"][...] = first, n
        c.refuses(master, words)
    with h5py.File(master, "r+") as f:
        f["shards/first_row"][...], f["shards/n_rows"][...] = np.cumsum(ROWS) - ROWS, ROWS
    with h5py.File(master, "r+") as f:
        f["shards/name"][1] = "../00001.h5"
    c.refuses(master, "../00001.h5")
    with h5py.File(master, "r+") as f:
        del f["shards"]
    c.refuses(master, "does not say in which")


def main() -> int:
    c = Checks()
    for check in (check_read, check_foreign, check_faults, check_lists):
        with tempfile.TemporaryDirectory() as tmp:
            made = make(Path(tmp))
            moved = made.parent / "moved"  # master and folder together
            moved.mkdir()
            for item in ("out.h5", "out.shards"):
                shutil.move(str(made.parent / item), str(moved / item))
            check(c, moved / "out.h5")
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
