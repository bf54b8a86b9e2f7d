"""Checks that scripts/h5lens never gives a fill value for a shard that the process could not open.

Three outputs of many shards, made by the program, open in one process that may open few files: with a hard limit
below the number of shards, with a soft one that can be raised, with other code that takes files between opening and
reading, and with none left at all. What is read is compared with what an unlimited process reads through HDF5.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import checks  # noqa: E402
import h5lens  # noqa: E402

H5LENS = os.environ.get("H5LENS", str(ROOT / "build" / "h5lens"))
SHARDS, LIMIT, OUTPUTS = 48, 32, 3
HOOK = "blocks.1.hook_resid_post"


class Checks(checks.Checks):
    def raises(self, what: str, use: Callable[[], Any]) -> None:
        try:
            got = use()
            self.that(False, f"{what}: no error; gave {got!r}"[:300])
        except h5lens.TooManyFiles as e:
            self.that("files open" in str(e) and "ulimit -n" in str(e), f"{what}: {e}")


def make(folder: Path) -> list[Path]:
    outs = [folder / str(i) / "out.h5" for i in range(OUTPUTS)]
    outs[0].parent.mkdir()
    subprocess.run([H5LENS, "run", str(ROOT / "experiments" / "ioi.yaml"), "-o", str(outs[0]), "--limit", str(SHARDS),
                    "--hooks", f"{HOOK},*hook_pattern", "--set", "shards.prompts=1"], check=True, capture_output=True)
    for out in outs[1:]:
        shutil.copytree(outs[0].parent, out.parent)
    return outs


def limit(soft: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@contextlib.contextmanager
def files_taken(left: int) -> Iterator[None]:
    """Other code's open files: all that the process may have but so many."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    for _ in range(left):
        os.close(taken.pop())
    yield
    for fd in taken:
        os.close(fd)


def uses(run: h5lens.Run) -> dict[str, Callable[[], Any]]:
    """Every way to read an activation; each gives the rows of HOOK."""
    full = f"cache/{HOOK}"
    return {
        "cache": lambda: run.cache(HOOK),
        "cache, rows in any order": lambda: run.cache(HOOK, rows=np.arange(SHARDS)[::-1])[::-1],
        "cache, a mask": lambda: run.cache(HOOK, rows=np.ones(SHARDS, bool)),
        "cache, one by one": lambda: np.stack([run.cache(HOOK, rows=i) for i in range(SHARDS)]),
        "dataset": lambda: run.dataset(HOOK)[:],
        "dataset, as an array": lambda: np.asarray(run.dataset(HOOK)),
        "dataset, astype": lambda: run.dataset(HOOK).astype("f8")[...].astype("f4"),
        "dataset, iteration": lambda: np.stack(list(run.dataset(HOOK))),
        "dataset, read_direct": lambda: direct(run.dataset(HOOK)),
        "activation_cache": lambda: run.activation_cache(names=[HOOK])[HOOK],
        "activation_cache, pos": lambda: run.activation_cache(names=[HOOK], pos=slice(None))[HOOK],
        "tree": lambda: run.tree[full].values,
        "tree, a dataset": lambda: run.tree["cache"].to_dataset()[HOOK].load().values,
        "tree, rows": lambda: run.tree[full][np.arange(SHARDS)].values,
    }


def direct(d: h5py.Dataset) -> np.ndarray:
    out = np.zeros(d.shape, d.dtype)
    d.read_direct(out)
    return out


def check_limited(c: Checks, outs: list[Path], want: np.ndarray, what: str, left: int) -> None:
    """All outputs open, other code's files but `left` taken after that."""
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(h5lens.open_run(out)) for out in outs]
        hold = stack.enter_context(contextlib.ExitStack())
        hold.enter_context(files_taken(left))
        for i, name in enumerate(uses(runs[0])):
            for run in runs if i == 0 else runs[:1]:
                got = uses(run)[name]()
                lost = int((np.isnan(got) & ~np.isnan(want)).any((1, 2)).sum())
                c.that(np.array_equal(got, want, equal_nan=True),
                       f"{what}: {name} of output {runs.index(run)}: {lost} rows of {SHARDS} are NaN and should not be")
        c.that(bool(found := runs[0].verify()), f"{what}: verify: {found.wrong}")


def check_none_left(c: Checks, outs: list[Path], want: np.ndarray) -> None:
    with h5lens.open_run(outs[0]) as run:
        with files_taken(0):
            for name, use in {**uses(run), "verify": run.verify}.items():
                c.raises(name, use)
            c.raises("open_run", lambda: h5lens.open_run(outs[1]))
        c.that(np.array_equal(run.cache(HOOK), want, equal_nan=True), "read again when there is room")
    # What is open of another run is closed where it is in the way.
    with h5lens.open_run(outs[0]) as run, h5lens.open_run(outs[1]) as other:
        run.cache(HOOK)
        with files_taken(0):
            c.that(np.array_equal(other.cache(HOOK), want, equal_nan=True), "room made of another run's files")
    c.that(not h5lens.files._open_shards, "close() leaves nothing open")
    forgotten = h5lens.open_run(outs[0])
    forgotten.cache(HOOK, rows=0)
    del forgotten
    gc.collect()
    c.that(not h5lens.files._open_shards, "a run that was not closed leaves nothing open")


def check_gone(c: Checks, out: Path) -> None:
    """A shard that goes while the run is open."""
    with h5lens.open_run(out) as run:
        run.shards[SHARDS // 2].rename(out.with_name("elsewhere"))
        for name, use in uses(run).items():
            try:
                use()
                c.that(False, f"{name}: no error for a shard that has gone")
            except h5lens.H5LensError as e:
                c.that("is missing" in str(e), f"{name}: {e}")
        out.with_name("elsewhere").write_bytes(run.shards[0].read_bytes())
        out.with_name("elsewhere").rename(run.shards[SHARDS // 2])
        try:
            run.cache(HOOK)
            c.that(False, "another shard in its place is read")
        except h5lens.H5LensError as e:
            c.that("another file" in str(e) or "bytes" in str(e), f"another shard: {e}")


def main() -> int:
    c = Checks()
    with tempfile.TemporaryDirectory() as tmp:
        outs = make(Path(tmp))
        with h5py.File(outs[0]) as f:  # HDF5's own reading, unlimited
            c.that(len(f["shards/name"]) == SHARDS, "the program made other shards")
            want = f[f"cache/{HOOK}"][...]
        c.that(not np.isnan(want[:, 0]).any(), "every prompt has a first token")
        with h5lens.open_run(outs[0]) as run:  # and all that Python imports at first use
            for name, use in {**uses(run), "verify": run.verify}.items():
                got = use()
                c.that(got if name == "verify" else np.array_equal(got, want, equal_nan=True), f"no limit: {name}")
        limit(LIMIT)
        check_limited(c, outs, want, "a soft limit", 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        with h5py.File(outs[0]) as f:  # what all this is about
            c.that(np.isnan(f[f"cache/{HOOK}"][:, 0]).any(), "HDF5 itself can read this: the limit is none")
        check_limited(c, outs, want, "a hard limit", 1)
        check_limited(c, outs, want, "a hard limit and some room", 7)
        check_none_left(c, outs, want)
        check_gone(c, outs[2])
    return c.end()


if __name__ == "__main__":
    sys.exit(main())
